"""What a rank owns of the trained parameters: its slices of fp32 masters and optimiser moments.

ZeRO keeps them in flat buffers, cut differently in stages 1 and 2 (a group's parameters in one line, cut among the
ranks) and stage 3 (every parameter cut). Here both look alike: a list of slices of flattened parameters. Checkpoints
and EMA are written in these terms and so know nothing of stages, ranks or groups.
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
        name: of the parameter, in the framework.
        start: first element of the slice in the flattened parameter.
        numel: its elements, without the padding that ZeRO puts behind the last.
        group: number of the flat buffer that holds it (see :func:`masters`).
        offset: where in that buffer.
    """

    name: str
    start: int
    numel: int
    group: int
    offset: int

    def of(self, buffers: list[Tensor]) -> Tensor:
        """This slice, (numel,), as a view of one of the flat buffers."""
        return buffers[self.group].narrow(0, self.offset, self.numel)


def partitions(engine: Engine) -> list[Partition]:
    """This rank's slices; together the ranks' slices cover every trained parameter once."""
    slices_of = sharded_slice if engine.zero_optimization_stage() == 3 else grouped_slice
    named = [(name, p) for name, p in engine.module.named_parameters() if p.requires_grad]
    found = [slices_of(engine.optimizer, name, parameter) for name, parameter in named]
    return [partition for partition in found if partition is not None and partition.numel > 0]


def sharded_slice(optimiser, name: str, parameter: torch.nn.Parameter) -> Partition:
    """Stage 3: each parameter is cut into equal parts, the last one padded."""
    group, offset, padded = optimiser.grad_position[optimiser.get_param_id(parameter)]
    start = padded * dist.get_rank(parameter.ds_process_group)
    return Partition(name, start, max(0, min(padded, parameter.ds_numel - start)), group, offset)


def grouped_slice(optimiser, name: str, parameter: torch.nn.Parameter) -> Partition | None:
    """Stages 1 and 2: the parameter's overlap with this rank's cut of its group, if there is one."""
    mapping = parameter._hp_mapping
    if mapping is None:
        return None
    inside, buffer = mapping.lp_fragment_address, mapping.hp_fragment_address
    return Partition(name, inside.start, inside.numel, mapping.param_group_index, buffer.start)


def masters(engine: Engine) -> list[Tensor]:
    """The flat fp32 buffers of this rank's master weights."""
    if engine.zero_optimization_stage() == 3:
        return list(engine.optimizer.fp32_partitioned_groups_flat)
    return list(engine.optimizer.single_partition_of_fp32_groups)


def model_weights(engine: Engine) -> list[Tensor]:
    """What the model computes with, laid out like :func:`masters`; in an fp32 run possibly the masters themselves."""
    optimiser = engine.optimizer
    if engine.zero_optimization_stage() == 3:
        return list(optimiser.fp16_partitioned_groups_flat)
    cuts = zip(optimiser.parallel_partitioned_bit16_groups, optimiser.real_dp_process_group)
    return [cut[dist.get_rank(group)] for cut, group in cuts]


def moments(engine: Engine, kind: str) -> list[Tensor]:
    """AdamW's ``exp_avg`` or ``exp_avg_sq``, laid out like :func:`masters`; there is none before the first update."""
    state = optimiser_of(engine).state
    return [state[flat][kind] for flat in masters(engine)]


def has_moments(engine: Engine) -> bool:
    """Whether there has been an update: AdamW makes its moments at the first."""
    return all(flat in optimiser_of(engine).state for flat in masters(engine))


def start_moments(engine: Engine, updates: int) -> None:
    """Give the optimiser the state it has after ``updates`` updates, its moments yet to be filled in."""
    optimiser = optimiser_of(engine)
    for flat in masters(engine):
        # DeepSpeed's AdamW on the host counts in a plain number, torch's in a tensor beside every buffer.
        torchs = isinstance(optimiser, torch.optim.AdamW)
        count = torch.tensor(float(updates), device=flat.device) if torchs else updates
        optimiser.state[flat] = {"step": count} | {kind: torch.zeros_like(flat) for kind in MOMENTS}


def optimiser_of(engine: Engine) -> torch.optim.Optimizer:
    """The optimiser of this rank's master weights, inside DeepSpeed's own."""
    return engine.optimizer.optimizer


@torch.no_grad()
def use_weights(engine: Engine, buffers: list[Tensor]) -> None:
    """Let the model compute with these weights, laid out like :func:`masters`; all ranks call this.

    As DeepSpeed does after an update: hand the new weights round, and leave none of the old ones gathered.
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
