"""ZeRO-3's traces: one for each kind of step.

ZeRO-3 records in which order a step uses the parameters and gathers them ahead in the next ones. A step of another
order throws the record away, and two steps pass before the next one is of use: where steps with and without the decoder
take turns (``loss.dec_every``), nothing would ever be gathered ahead.

This file reaches into parts of DeepSpeed 0.19.8 that are not public: ``optimizer.parameter_offload.param_coordinator``,
which its hooks ask for afresh at each module, and ``_invalidate_trace`` and ``_clear_trace_structures`` of it.
"""

from collections.abc import Hashable
from copy import copy
from weakref import WeakKeyDictionary

from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

from pipelines.engine.setup import Engine

# Of an engine: kind of step -> what records and follows its trace.
_traces: WeakKeyDictionary[Engine, dict[Hashable, PartitionedParameterCoordinator]] = WeakKeyDictionary()


def follow_trace(engine: Engine, kind: Hashable) -> None:
    """Say before a micro-step's forward that it is of a kind, the same on every rank; only ZeRO-3 has traces."""
    if engine.zero_optimization_stage() < 3:
        return
    offload = engine.optimizer.parameter_offload
    own = _traces.setdefault(engine, {})
    if kind not in own:
        own[kind] = without_trace(offload.param_coordinator) if own else offload.param_coordinator
    offload.param_coordinator = own[kind]


def without_trace(coordinator: PartitionedParameterCoordinator) -> PartitionedParameterCoordinator:
    """Another one for the same parameters; what is on its way between two steps is known to both."""
    other = copy(coordinator)
    if other.is_invalid_trace():
        other._clear_trace_structures()  # its own lists, in which nothing stands yet
    else:
        other._invalidate_trace()
    return other
