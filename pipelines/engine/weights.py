"""Pretrained weights in the run: under ZeRO-3 each rank reads its own slices of every parameter and nothing else.

DeepSpeed keeps of a parameter the ``rank``-th of ``world`` equal flat parts, the last one padded. Here one parameter
after another is laid over the same scratch memory, this rank's part of it is filled from the checkpoint, and DeepSpeed
takes a copy of that part: where it lies (host or GPU, pinned, quantised) stays DeepSpeed's business.
"""

import deepspeed
import torch
from torch import nn

from pipelines.engine import distributed, hub, internals
from vtok.assembly.build import frozen_weights
from vtok.framework import VTokFramework
from vtok.weights import combined_hash, content_hash, shapes_of
from vtok.weights.materialise import Place, Read, whole


def placement(ds_config: dict, dtype: torch.dtype) -> Place:
    """Where this rank keeps parameters: shards under ZeRO-3; whole, on its device, with the stages below.

    It holds memory for the largest parameter: let go of it when all are placed.
    """
    if ds_config.get("zero_optimization", {}).get("stage", 0) < 3:
        return whole(dtype, distributed.device())
    # Given a module, if an empty one, DeepSpeed also swaps in its linear layer that saves no gathered weights.
    zero = deepspeed.zero.Init(module=nn.Module(), config_dict_or_path=ds_config)
    scratch = torch.empty(0, dtype=dtype, device=zero.local_device)

    def place(parameter: nn.Parameter, read: Read) -> nn.Parameter:
        nonlocal scratch
        if parameter.numel() > scratch.numel():
            scratch = scratch.new_empty(parameter.numel())
        values = scratch[: parameter.numel()]
        for start, stop in internals.kept(zero, values.numel()):
            read(values[start:stop], start)
        return internals.sharded(zero, nn.Parameter(values.view(parameter.shape), parameter.requires_grad))

    return place


def frozen_hashes(framework: VTokFramework) -> dict[str, str]:
    """sha256 of every frozen part's weights as they are stored: every byte of every tensor that is loaded, with its
    name, shape and dtype, but not the files' layout. Each rank reads and hashes its share of the tensors.

    A part with random weights has none; it is drawn from the run's seed.

    Args:
        framework: with all its parts: before those that the run does not use are left without weights.
    """
    parts = frozen_weights(framework.config)
    with hub.asked_once(framework.config):
        shapes = shapes_of(framework)
        tensors = [(part, name, tensor) for part in parts for name, tensor in parts[part].tensors(shapes).items()]
    largest_first = sorted(tensors, key=lambda entry: -entry[2].numel)
    mine = largest_first[distributed.rank() :: distributed.world_size()]
    hashes = distributed.every_rank(lambda: [(part, name, content_hash(tensor)) for part, name, tensor in mine])
    gathered = sum(distributed.gather_lists(hashes), [])
    return {part: combined_hash({name: value for p, name, value in gathered if p == part}) for part in parts}
