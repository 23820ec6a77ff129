"""Accesses private parts of DeepSpeed 0.19 and torch. ``pyproject.toml`` caps the versions for this file.

Partitions: a rank's slices of the trained parameters, fp32 masters and optimiser moments. ZeRO keeps them in flat
buffers. Stages 1 and 2 concatenate the parameters of a group and cut the result among the ranks; stage 3 cuts every
parameter. This module describes both as a list of slices of flattened parameters. So checkpoints and EMA do not depend
on stages, ranks or groups.

Traces: ZeRO-3 records the order in which a step uses the parameters, and gathers them in advance in the next steps. A
step with another order discards the record, and it takes two steps until the next record is in use. If steps with and
without the decoder alternate (``loss.dec_every``), nothing would ever be gathered in advance. So each kind of step has
its own trace.

Shards: ZeRO-3 cuts a flattened parameter into equal parts, one per rank, and pads the last. A rank keeps its part.
Small parameters of a list are gathered together.

Hooks: ZeRO-3 runs code before and after a module's forward and backward, some hundred times in a micro-step. Where it
takes longer than the kernels, the GPU waits for the host.
"""

import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from deepspeed.git_version_info import installed_ops
from deepspeed.runtime.utils import all_gather_dp_groups
from deepspeed.runtime.zero import GatheredParameters, Init, linear, partitioned_param_coordinator
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from deepspeed.utils import set_z3_leaf_module
from torch import Tensor, nn
from torch.distributed import distributed_c10d

# ---------------------------------------------------------------- partitions

MOMENTS = ("exp_avg", "exp_avg_sq")
GRADIENTS = "grad_partitions_flat_buffer"  # of stage 3


class Partition(NamedTuple):
    """A slice of one trained parameter.

    Attributes:
        name: Name of the parameter in the framework.
        start: First element of the slice in the flattened parameter.
        numel: Its elements, without ZeRO's padding after the last.
        group: Index of the flat buffer that holds it (see :func:`masters`).
        offset: Its start in that buffer.
    """

    name: str
    start: int
    numel: int
    group: int
    offset: int

    def of(self, buffers: list[Tensor]) -> Tensor:
        """Returns the slice, (numel,), as a view of one of the flat buffers."""
        return buffers[self.group].narrow(0, self.offset, self.numel)


def partitions(engine: DeepSpeedEngine) -> list[Partition]:
    """Lists this rank's slices. The slices of all ranks cover every trained parameter once."""
    slices_of = sharded_slice if engine.zero_optimization_stage() == 3 else grouped_slice
    named = [(name, p) for name, p in engine.module.named_parameters() if p.requires_grad]
    found = [slices_of(engine.optimizer, name, parameter) for name, parameter in named]
    return [partition for partition in found if partition is not None and partition.numel > 0]


def sharded_slice(optimiser, name: str, parameter: torch.nn.Parameter) -> Partition:
    """Describes a slice of stage 3, which cuts each parameter into equal parts and pads the last."""
    group, offset, padded = optimiser.grad_position[optimiser.get_param_id(parameter)]
    start = padded * dist.get_rank(parameter.ds_process_group)
    return Partition(name, start, max(0, min(padded, parameter.ds_numel - start)), group, offset)


def grouped_slice(optimiser, name: str, parameter: torch.nn.Parameter) -> Partition | None:
    """Describes a slice of stages 1 and 2: the parameter's overlap with this rank's cut of its group, if any."""
    mapping = parameter._hp_mapping
    if mapping is None:
        return None
    inside, buffer = mapping.lp_fragment_address, mapping.hp_fragment_address
    return Partition(name, inside.start, inside.numel, mapping.param_group_index, buffer.start)


def masters(engine: DeepSpeedEngine) -> list[Tensor]:
    """Returns the flat fp32 buffers of this rank's master weights."""
    if engine.zero_optimization_stage() == 3:
        return list(engine.optimizer.fp32_partitioned_groups_flat)
    return list(engine.optimizer.single_partition_of_fp32_groups)


def model_weights(engine: DeepSpeedEngine) -> list[Tensor]:
    """Returns the weights that the model computes with, in the layout of :func:`masters`. fp32 runs may share both."""
    optimiser = engine.optimizer
    if engine.zero_optimization_stage() == 3:
        return list(optimiser.fp16_partitioned_groups_flat)
    cuts = zip(optimiser.parallel_partitioned_bit16_groups, optimiser.real_dp_process_group)
    return [cut[dist.get_rank(group)] for cut, group in cuts]


def moments(engine: DeepSpeedEngine, kind: str) -> list[Tensor]:
    """Returns AdamW's ``exp_avg`` or ``exp_avg_sq`` in the layout of :func:`masters`. There must be an update."""
    state = optimiser_of(engine).state
    return [state[flat][kind] for flat in masters(engine)]


def has_moments(engine: DeepSpeedEngine) -> bool:
    """Whether there was an update. AdamW makes its moments at the first."""
    return all(flat in optimiser_of(engine).state for flat in masters(engine))


def start_moments(engine: DeepSpeedEngine, updates: int) -> None:
    """Gives the optimiser the state after ``updates`` updates, with moments of zero."""
    optimiser = optimiser_of(engine)
    for flat in masters(engine):
        # DeepSpeed's AdamW on the host counts updates in a number. torch's fused one counts in a tensor for each
        # buffer, which its kernel needs on the buffer's device.
        fused = isinstance(optimiser, torch.optim.AdamW)
        count = torch.tensor(float(updates), device=flat.device) if fused else updates
        optimiser.state[flat] = {"step": count} | {kind: torch.zeros_like(flat) for kind in MOMENTS}


def optimiser_of(engine: DeepSpeedEngine) -> torch.optim.Optimizer:
    """Returns the optimiser of this rank's master weights, which DeepSpeed's wraps."""
    return engine.optimizer.optimizer


def release(engine: DeepSpeedEngine) -> None:
    """Frees the memory of an engine that is no longer used.

    The engine itself stays until the process ends, since DeepSpeed's hooks in torch's C++ part hold it. So its tensors
    are emptied.
    """
    engine.destroy()
    optimiser, tensors = engine.optimizer, [*masters(engine), *model_weights(engine), *engine.module.buffers()]
    for parameter in engine.module.parameters():
        shards = (getattr(parameter, name, None) for name in ("grad", "ds_tensor", "ds_secondary_tensor"))
        tensors += [parameter.data, *(shard for shard in shards if shard is not None)]
    for state in optimiser_of(engine).state.values():
        tensors += [value for value in state.values() if torch.is_tensor(value)]
    tensors += [*filter(torch.is_tensor, [getattr(optimiser, GRADIENTS, None)])]
    tensors += getattr(optimiser, "bit16_groups_flat", [])
    for tensor in tensors:
        if tensor.untyped_storage().resizable():
            tensor.untyped_storage().resize_(0)
    for name in ("averaged_gradients", "all_grad_tensors"):  # lists of stage 2
        getattr(optimiser, name, {}).clear()


@torch.no_grad()
def use_weights(engine: DeepSpeedEngine, buffers: list[Tensor]) -> None:
    """Makes the model compute with these weights, in the layout of :func:`masters`. All ranks call this.

    It does what DeepSpeed does after an update: it distributes the new weights and frees gathered old ones.
    """
    optimiser = engine.optimizer
    sharded = engine.zero_optimization_stage() == 3
    if sharded:
        optimiser._partition_all_parameters()
    for target, source in zip(model_weights(engine), buffers):
        target.data.copy_(source)
    if not sharded:
        all_gather_dp_groups(
            optimiser.bit16_groups_flat,
            optimiser.parallel_partitioned_bit16_groups,
            optimiser.real_dp_process_group,
            optimiser.nccl_start_alignment_factor,
            optimiser.allgather_bucket_size,
        )
        return
    for group in range(len(buffers)):
        optimiser._unflatten_partitioned_parameters(group)
    if optimiser.persistent_parameters:
        optimiser.persistent_parameters[0].all_gather(optimiser.persistent_parameters)
    optimiser.invalidate_secondary_tensor()


# ---------------------------------------------------------------- traces

# For each engine: kind of step -> the coordinator that records and follows its trace.
_traces: WeakKeyDictionary[DeepSpeedEngine, dict[Hashable, PartitionedParameterCoordinator]] = WeakKeyDictionary()


def follow_trace(engine: DeepSpeedEngine, kind: Hashable) -> None:
    """Switches ZeRO-3 to the trace of a kind of step. Call it before each micro-step's forward, alike on all ranks."""
    if engine.zero_optimization_stage() < 3:
        return
    offload = engine.optimizer.parameter_offload
    own = _traces.setdefault(engine, {})
    if kind not in own:
        own[kind] = without_trace(offload.param_coordinator) if own else offload.param_coordinator
    offload.param_coordinator = own[kind]


def without_trace(coordinator: PartitionedParameterCoordinator) -> PartitionedParameterCoordinator:
    """Returns a coordinator without a trace, for the same parameters. Both share the gathers that are in flight."""
    other = copy(coordinator)
    if other.is_invalid_trace():
        other._clear_trace_structures()  # gives the copy empty lists of its own
    else:
        other._invalidate_trace()
    return other


# ---------------------------------------------------------------- shards


def kept(zero: Init, numel: int) -> Iterator[tuple[int, int]]:
    """Yields the ranges (start, stop) of a flattened parameter that this rank keeps.

    They are this rank's part among all ranks and, with ZeRO++'s secondary partition, its part among its group.
    """
    padded = -(-numel // zero.dp_world_size) * zero.dp_world_size
    for parts, index in {(zero.dp_world_size, zero.rank), (zero.num_ranks_in_param_group, zero.rank_in_group)}:
        size = padded // parts
        yield min(index * size, numel), min((index + 1) * size, numel)


def sharded(zero: Init, parameter: nn.Parameter) -> nn.Parameter:
    """Reduces a parameter to this rank's part, which DeepSpeed copies from the whole values, and returns it."""
    zero._convert_to_deepspeed_param(parameter)
    parameter.partition()
    parameter.ds_tensor[max(0, parameter.ds_numel - zero.rank * parameter.ds_tensor.numel()) :].zero_()  # the padding
    return parameter


def frozen_slice(parameter: nn.Parameter) -> tuple[int, Tensor]:
    """Returns this rank's slice of a frozen parameter: its first element, and the values (n,).

    The slices of all ranks cover the parameter once, whether or not ZeRO-3 has sharded it.
    """
    if hasattr(parameter, "ds_tensor"):
        size, flat = parameter.ds_tensor.numel(), parameter.ds_tensor.flatten()
        start = size * dist.get_rank(parameter.ds_process_group)
        return start, flat[: max(0, min(size, parameter.ds_numel - start))]
    ranks, rank = dist.get_world_size(), dist.get_rank()
    size = -(-parameter.numel() // ranks)
    start = min(size * rank, parameter.numel())
    return start, parameter.detach().flatten()[start : start + size]


def gather_at_once(module: nn.Module, methods: Sequence[str]) -> None:
    """Makes ZeRO-3 gather a module whole around each call of these methods, and not part by part within them.

    Call it before the engine is built. An autoencoder takes a long video piece by piece and a large one in tiles. If
    each piece gathered its parts, ranks with other videos would gather another number of times, and hang.
    """
    set_z3_leaf_module(module, True)  # its parts get no hooks
    for name in methods:
        setattr(module, name, partial(_gathered, module, getattr(module, name)))


def _gathered(module: nn.Module, method: Callable, *arguments: Any, **options: Any) -> Any:
    with GatheredParameters(list(module.parameters())):
        return method(*arguments, **options)


# DeepSpeed's own: one collective for each parameter.
_gather_each = Init._allgather_params_coalesced
SMALL = 1_000_000  # elements of a parameter that is gathered with others; the copy of a larger one would cost memory


def gather_small_together() -> None:
    """Makes ZeRO-3 gather small parameters in one collective for each dtype, where it is told to gather a list.

    After every update it gathers all norms and biases, hundreds, since they stay whole on each rank.
    """
    Init._allgather_params_coalesced = _gather_together


def _gather_together(zero: Init, parameters: list[nn.Parameter], hierarchy: int = 0, quantize: bool = False) -> None:
    alone = quantize or all(zero._partition_world_size(parameter) == 1 for parameter in parameters)
    together: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        if not alone and parameter.ds_numel <= SMALL:
            together.setdefault(parameter.ds_tensor.dtype, []).append(parameter)
    _gather_each(zero, [p for p in parameters if alone or p.ds_numel > SMALL], hierarchy, quantize)
    for group in together.values():
        shards = [parameter.ds_tensor.flatten().to(zero.local_device) for parameter in group]
        own, ranks = torch.cat(shards), zero._partition_world_size(group[0])
        whole = own.new_empty(ranks * own.numel())
        dist.all_gather_into_tensor(whole, own, group=zero.get_partition_dp_group(group[0]))
        for parameter, parts in zip(group, whole.view(ranks, -1).split([len(shard) for shard in shards], 1)):
            parameter.data = parts.flatten()[: parameter.ds_numel].view(parameter.ds_shape)


# ---------------------------------------------------------------- hooks

# ZeRO-3's functions in a module's graph: they run hooks before and after its backward.
HOOK_FUNCTIONS = "pre_bwd_fn", "post_bwd_fn"

# Returns the innermost hooks on tensors that autograd saves, such as those of gradient checkpointing, or None.
_hooks_on_saved = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda ignore_is_tracing: None)

# For each module: its parameters, and those of all modules in it (True), once they have been asked for.
_parameters: WeakKeyDictionary[nn.Module, dict[bool, list[nn.Parameter]]] = WeakKeyDictionary()


def lighten_hooks(engine: DeepSpeedEngine) -> None:
    """Makes ZeRO-3's hooks do the same with less work of the host. Call it when the engine is built.

    DeepSpeed lists a module's parameters at each hook. torch inspects a function's signature at each call.
    """
    _parameters.clear()  # of a framework that another engine had
    coordinating: Any = partitioned_param_coordinator
    coordinating.iter_params = listed_once
    coordinating.update_recompute_parameters = keep_for_backward
    if isinstance(linear.LinearFunctionForZeroStage3, type):
        linear.LinearFunctionForZeroStage3 = where_weights_are_saved(linear.LinearFunctionForZeroStage3)
    for module in engine.module.modules():
        for name in HOOK_FUNCTIONS:
            function = module.__dict__.get(name)
            if isinstance(function, type):  # else it is ours, of another engine
                setattr(module, name, where_gradients_pass(function))


def without_signature(function: type[torch.autograd.Function]) -> type[torch.autograd.Function]:
    """Returns the same function with its ``setup_context`` in ``forward``. Call it with arguments by position.

    Where a function has a ``setup_context``, torch inspects its signature at each call.
    """

    class Lean(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = function.forward(*inputs)
            function.setup_context(ctx, inputs, output)
            return output

        backward = staticmethod(function.backward)

    return Lean


def where_gradients_pass(function: type[torch.autograd.Function]) -> SimpleNamespace:
    """Returns a hook's function that leaves tensors without a gradient as they are. They have no backward."""
    lean = without_signature(function)

    def apply(tensor: Tensor) -> Tensor:
        return lean.apply(tensor) if tensor.requires_grad and torch.is_grad_enabled() else tensor

    return SimpleNamespace(apply=apply)


def where_weights_are_saved(function: type[torch.autograd.Function]) -> SimpleNamespace:
    """Returns ZeRO-3's linear layer, which torch's own replaces where both keep the same tensors until the backward.

    torch's saves a view of the weight, so the weight's memory would not be free between forward and backward. Without
    gradients nothing is saved. Gradient checkpointing saves tensors as it recomputes a block, whose weights ZeRO-3
    keeps until its backward is over.
    """
    lean = without_signature(function)

    def apply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if torch.compiler.is_compiling() or (torch.is_grad_enabled() and _hooks_on_saved(False) is None):
            return lean.apply(x, weight, bias)
        return torch._C._nn.linear(x, weight, bias)

    return SimpleNamespace(apply=apply)


def listed_once(module: nn.Module, recurse: bool = False) -> Iterator[nn.Parameter]:
    """Yields a module's parameters, then those of others that it uses, as DeepSpeed's ``iter_params``."""
    known = _parameters.setdefault(module, {})
    if recurse not in known:
        known[recurse] = list(module.parameters(recurse=recurse))
    yield from known[recurse]
    yield from module._external_params.values()  # ZeRO-3 finds these as the module runs


def keep_for_backward(module: nn.Module, parameter: nn.Parameter) -> None:
    """Keeps a parameter that was gathered for a recomputation until the backward of ``module``, as DeepSpeed does."""
    module.ds_recompute_parameters.add(parameter)
    parameter.ds_active_sub_modules.add(module.ds_id)


# ---------------------------------------------------------------- processes


def set_timeout(timeout: timedelta) -> None:
    """Sets how long this rank waits for the others, in every process group including DeepSpeed's."""
    for group in distributed_c10d._world.pg_map:
        distributed_c10d._set_pg_timeout(timeout, group)


@contextmanager
def waits_through(observe: Callable[[Callable[[], Any]], Any]) -> Iterator[None]:
    """Within, every wait for a collective goes through ``observe``, which gets the wait and calls it."""
    own = dist.Work.wait
    dist.Work.wait = lambda work, *arguments, **options: observe(partial(own, work, *arguments, **options))
    try:
        yield
    finally:
        dist.Work.wait = own


def own_store() -> dist.Store:
    """Returns another connection to the store of the process group, for a thread of its own."""
    return distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]


def record_of_collectives() -> str:
    """Returns torch's record of this rank's latest collectives, as JSON. Empty if this torch keeps none."""
    name = "_dump_nccl_trace_json" if torch.cuda.is_available() else "_dump_fr_trace_json"
    dump = getattr(torch._C._distributed_c10d, name, None)
    return dump(includeCollectives=True, onlyActive=False).decode() if dump else "{}"


def last_collective() -> str:
    """Describes the latest collective that this rank has begun."""
    entries = json.loads(record_of_collectives()).get("entries")
    if not entries:
        return "no recorded collective"
    last = entries[-1]
    shapes = ", ".join("x".join(map(str, size)) for size in last.get("input_sizes", []))
    return f"collective {last.get('collective_seq_id')}, {last.get('profiling_name')} of {shapes or 'nothing'}"


def is_installed(operator: str) -> bool:
    """Whether an operator of DeepSpeed was compiled when DeepSpeed was installed."""
    return bool(installed_ops.get(operator))


def first_to_say(text: str) -> bool:
    """Whether this rank is the first that asks about this text. It also answers if the other ranks hang or are gone."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return True
    try:
        return distributed_c10d._get_default_store().add(f"said {text}", 1) == 1
    except dist.DistError:  # the rank that keeps the store has ended
        return True
