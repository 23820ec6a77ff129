"""A rank's slices of the trained parameters: fp32 masters and optimiser moments.

ZeRO keeps them in flat buffers. Stages 1 and 2 concatenate the parameters of a group and cut the result among the
ranks; stage 3 cuts every parameter. This module describes both as a list of slices of flattened parameters. Checkpoints
and EMA use only that, so they do not depend on stages, ranks or groups.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from deepspeed.runtime.utils import all_gather_dp_groups
from torch import Tensor

from pipelines.engine.setup import Engine

MOMENTS = ("exp_avg", "exp_avg_sq")


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


def partitions(engine: Engine) -> list[Partition]:
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


def masters(engine: Engine) -> list[Tensor]:
    """Returns the flat fp32 buffers of this rank's master weights."""
    if engine.zero_optimization_stage() == 3:
        return list(engine.optimizer.fp32_partitioned_groups_flat)
    return list(engine.optimizer.single_partition_of_fp32_groups)


def model_weights(engine: Engine) -> list[Tensor]:
    """Returns the weights that the model computes with, in the layout of :func:`masters`. fp32 runs may share both."""
    optimiser = engine.optimizer
    if engine.zero_optimization_stage() == 3:
        return list(optimiser.fp16_partitioned_groups_flat)
    cuts = zip(optimiser.parallel_partitioned_bit16_groups, optimiser.real_dp_process_group)
    return [cut[dist.get_rank(group)] for cut, group in cuts]


def moments(engine: Engine, kind: str) -> list[Tensor]:
    """Returns AdamW's ``exp_avg`` or ``exp_avg_sq`` in the layout of :func:`masters`. There must be an update."""
    state = optimiser_of(engine).state
    return [state[flat][kind] for flat in masters(engine)]


def has_moments(engine: Engine) -> bool:
    """Whether there was an update. AdamW makes its moments at the first."""
    return all(flat in optimiser_of(engine).state for flat in masters(engine))


def start_moments(engine: Engine, updates: int) -> None:
    """Gives the optimiser the state after ``updates`` updates, with moments of zero."""
    optimiser = optimiser_of(engine)
    for flat in masters(engine):
        # DeepSpeed's AdamW on the host counts updates in a number. torch's fused one counts in a tensor for each
        # buffer, which its kernel needs on the buffer's device.
        fused = isinstance(optimiser, torch.optim.AdamW)
        count = torch.tensor(float(updates), device=flat.device) if fused else updates
        optimiser.state[flat] = {"step": count} | {kind: torch.zeros_like(flat) for kind in MOMENTS}


def optimiser_of(engine: Engine) -> torch.optim.Optimizer:
    """Returns the optimiser of this rank's master weights, which DeepSpeed's wraps."""
    return engine.optimizer.optimizer


@torch.no_grad()
def use_weights(engine: Engine, buffers: list[Tensor]) -> None:
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
