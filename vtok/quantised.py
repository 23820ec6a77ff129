"""Frozen linear layers in 8 or 4 bits under their adapters, by bitsandbytes. On a GPU only.

The layers are swapped while the framework is on the meta device. Each weight is quantised as soon as it is read, so
that the whole model is never in memory in full precision. 4 bits are NF4.
"""

from collections.abc import Mapping
from importlib.util import find_spec

import torch
from torch import nn

from vtok.config import LoraConfig, require
from vtok.lora import adapted_layers
from vtok.weights.materialise import Place, Read

# Bytes of a weight. NF4 has an fp32 scale for 64 weights; 8 bits have one for a row.
BYTES = {8: 1.0, 4: 0.5 + 4 / 64}


def require_quantisation(setting: str, bits: int) -> None:
    """Raises ConfigError unless bitsandbytes is installed and there is a GPU."""
    for there, lacking in ((find_spec("bitsandbytes") is not None, "bitsandbytes"), (has_gpu(), "a GPU")):
        require(there, f"{setting}.bits {bits} needs bitsandbytes and a GPU, and there is no {lacking}: set it to 16")


def has_gpu() -> bool:
    return torch.cuda.is_available()


def quantise_layers(modules: Mapping[str, tuple[nn.Module | None, LoraConfig | None]]) -> bool:
    """Swaps the layers under adapters for quantised ones, where the settings say so. Returns whether any was swapped.

    Args:
        modules: Modules on the meta device, and their adapters' settings, by the name of these settings.

    Raises:
        ConfigError: bitsandbytes or a GPU is missing.
    """
    swapped = False
    for setting, (module, lora) in modules.items():
        if module is None or lora is None or lora.bits == 16:
            continue
        require_quantisation(setting, lora.bits)
        for layer in adapted_layers(module):
            if layer.base_layer.weight is not None:
                layer.base_layer, swapped = empty_layer(layer.base_layer, lora.bits), True
    return swapped


def empty_layer(linear: nn.Linear, bits: int) -> nn.Linear:
    """Returns a quantised layer on the meta device with the shape of another."""
    from bitsandbytes import nn as quantised

    sizes = linear.in_features, linear.out_features, linear.bias is not None
    with torch.device("meta"):
        if bits == 4:
            layer = quantised.Linear4bit(*sizes, quant_type="nf4")
        else:
            layer = quantised.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0)
    return layer.requires_grad_(False)


def quantising(place: Place) -> Place:
    """Returns a function that places parameters like ``place``, and quantises those of quantised layers."""
    from bitsandbytes.nn import Int8Params, Params4bit

    def quantised(parameter: nn.Parameter, read: Read, fp32: bool) -> nn.Parameter:
        placed = place(parameter, read, fp32)
        if not isinstance(parameter, (Int8Params, Params4bit)):
            return placed
        values = placed.detach().cpu()  # bitsandbytes quantises on the way from the host
        own = {"quant_type": "nf4"} if isinstance(parameter, Params4bit) else {"has_fp16_weights": False}
        return type(parameter)(values, requires_grad=False, **own).to(placed.device)

    return quantised
