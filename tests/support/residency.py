"""What an engine keeps on this rank between steps, in bytes, counted from its own tensors."""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn

from pipelines.engine.internals import masters, optimiser_of
from pipelines.engine.setup import Engine

# (kind, device type) -> bytes; the kinds are those of :func:`resident_tensors`.
Residency = Counter[tuple[str, str]]


def residency(engine: Engine) -> Residency:
    """Bytes by kind and by device ("cpu", "cuda"). Memory that two kinds share counts as the first one's."""
    total: Residency = Counter()
    owner: dict[int, str] = {}
    for kind, tensor in resident_tensors(engine):
        # By where it begins: shards are views of one long buffer, which in fp32 is the master copy too.
        if tensor.numel() and owner.setdefault(tensor.data_ptr(), kind) == kind:
            total[kind, tensor.device.type] += tensor.numel() * tensor.element_size()
    return total


def bytes_of(resident: Residency, kind: str) -> int:
    """Bytes of a kind on all devices."""
    return sum(count for (found, _), count in resident.items() if found == kind)


def resident_tensors(engine: Engine) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that stays, with its kind:

    - ``frozen``, ``trainable``: parameters; under ZeRO-3 this rank's shards, padding included
    - ``persistent``: of parameters below ``stage3_param_persistence_threshold`` the shards, and the whole that every
      rank keeps
    - ``gathered``: other parameters that happen to be whole just now; none between steps
    - ``secondary``: ZeRO++'s second shards, for fast nodes
    - ``buffers``: of the model
    - ``master``: the optimiser's fp32 copy; none in fp32, where it is the parameters themselves
    - ``moments``, ``gradients``, ``bucket`` (in which gradients are reduced)
    """
    for parameter in engine.module.parameters():
        yield from parameter_tensors(parameter)
        if parameter.grad is not None:
            yield "gradients", parameter.grad
    for buffer in engine.module.buffers():
        yield "buffers", buffer
    yield from (("master", partition) for partition in masters(engine))
    for state in optimiser_of(engine).state.values():
        yield from (("moments", moment) for moment in state.values() if torch.is_tensor(moment) and moment.ndim)
    if engine.zero_optimization_stage() == 3:
        yield "gradients", engine.optimizer.grad_partitions_flat_buffer
        yield from (("bucket", bucket.buffer) for bucket in engine.optimizer.ipg_buckets.values())


def parameter_tensors(parameter: nn.Parameter) -> Iterator[tuple[str, torch.Tensor]]:
    kind = "trainable" if parameter.requires_grad else "frozen"
    if not hasattr(parameter, "ds_tensor"):
        yield kind, parameter.data
        return
    yield ("persistent" if parameter.ds_persist else kind), parameter.ds_tensor
    yield ("persistent" if parameter.ds_persist else "gathered"), parameter.data  # empty unless it is gathered
    if parameter.ds_secondary_tensor is not None:
        yield "secondary", parameter.ds_secondary_tensor
