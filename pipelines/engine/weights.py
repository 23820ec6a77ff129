"""Loads and hashes pretrained weights. Under ZeRO-3 each rank reads only its own slices of every parameter.

DeepSpeed cuts a flattened parameter into ``world`` equal parts, the last one padded, and a rank keeps its part. This
module makes one parameter after another as a view of the same scratch memory, and fills this rank's part of it from the
checkpoint. DeepSpeed then copies that part and decides where to keep it (host or GPU, pinned, quantised).
"""

import deepspeed
import torch
from torch import nn

from pipelines.engine import distributed, ds_json, hub, internals
from vtok.assembly.build import LANGUAGE_MODEL, frozen_weights, pretrained_parts
from vtok.config import ConfigError
from vtok.framework import VTokFramework
from vtok.weights import combined_hash, content_hash, shape_of
from vtok.weights.materialise import Place, Read, whole
from vtok.weights.precision import stored_dtype

# Settings of ZeRO++, by which DeepSpeed quantises weights for its gathers.
QUANTISING = ("zero_quantized_weights", "zero_quantized_nontrainable_weights")


def placement(ds_config: dict, dtype: torch.dtype) -> Place:
    """Returns the function that places parameters: as shards under ZeRO-3, else whole on this rank's device.

    The function holds scratch memory for the largest parameter of each dtype. Drop it when all parameters are placed.

    Args:
        ds_config: DeepSpeed's configuration.
        dtype: Precision of the run.

    Raises:
        ConfigError: DeepSpeed refuses the configuration, or would quantise codes of fp8 weights again.
    """
    if ds_config.get("zero_optimization", {}).get("stage", 0) < 3:
        return whole(dtype, distributed.device())
    # Given any module, DeepSpeed also installs its linear layer, which does not save gathered weights for backward.
    with ds_json.refusals():
        zero = deepspeed.zero.Init(module=nn.Module(), config_dict_or_path=ds_config)
    quantises = [key for key in QUANTISING if ds_config["zero_optimization"].get(key)]
    kinds = (dtype, torch.float32, torch.uint8)
    scratch = {kind: torch.empty(0, dtype=kind, device=zero.local_device) for kind in kinds}

    def place(parameter: nn.Parameter, read: Read, fp32: bool) -> nn.Parameter:
        kind = stored_dtype(parameter, dtype, fp32)
        if quantises and not kind.is_floating_point:
            raise ConfigError(
                f"zero_optimization.{quantises[0]} cannot quantise fp8 weights again: leave out it or fp8"
            )
        if parameter.numel() > scratch[kind].numel():
            scratch[kind] = scratch[kind].new_empty(parameter.numel())
        values = scratch[kind][: parameter.numel()]
        for start, stop in internals.kept(zero, values.numel()):
            read(values[start:stop], start)
        return internals.sharded(zero, nn.Parameter(values.view(parameter.shape), parameter.requires_grad))

    return place


def frozen_hashes(framework: VTokFramework) -> dict[str, str]:
    """Returns the sha256 of each frozen part's stored weights.

    A hash covers name, shape, dtype and all bytes of every tensor that is loaded, but not the layout of the files. Each
    rank reads and hashes its share of the tensors. A part with random weights has no hash: the run's seed gives them.
    The language model has one if some of it is frozen.

    Args:
        framework: The framework with all its parts, also those that the run will leave without weights.
    """
    parts = frozen_weights(framework.config)
    frozen = {name: shape_of(p) for name, p in framework.named_parameters() if not p.requires_grad}
    language = pretrained_parts(framework.config)[LANGUAGE_MODEL]
    if any(map(language.stored_names, frozen)):
        parts[LANGUAGE_MODEL] = language
    with hub.asked_once(framework.config):
        tensors = [(part, name, tensor) for part in parts for name, tensor in parts[part].tensors(frozen).items()]
    largest_first = sorted(tensors, key=lambda entry: -entry[2].numel)
    mine = largest_first[distributed.rank() :: distributed.world_size()]
    hashes = distributed.every_rank(lambda: [(part, name, content_hash(tensor)) for part, name, tensor in mine])
    gathered = sum(distributed.gather_lists(hashes), [])
    return {part: combined_hash({name: value for p, name, value in gathered if p == part}) for part in parts}
