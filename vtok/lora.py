"""Adapters on linear layers (LoRA and DoRA): peft's own layers, put into a model that is still on the meta device.

peft wraps a linear layer ``q_proj`` and adds parameters beside it. In a framework they are called

    q_proj.base_layer.weight                          the layer's own, frozen
    q_proj.lora_A.default.weight                      (rank, in), drawn
    q_proj.lora_B.default.weight                      (out, rank), zero at start
    q_proj.lora_magnitude_vector.default.weight       (out,), DoRA's: the lengths of the layer's rows

peft takes seconds to import, so only what needs it does.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vtok.adapter_names import BASE
from vtok.config import LoraConfig, require

MAGNITUDE = ".lora_magnitude_vector.default.weight"
DEFAULT = ".default"  # peft's name of a model's only adapter

# The layers that get adapters if the settings name none.
LANGUAGE_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TRANSFORMER_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def peft_config(config: LoraConfig, targets: list[str] | str) -> Any:
    """Returns peft's ``LoraConfig``.

    Args:
        config: The settings.
        targets: Names of the layers as they end, or a regular expression for whole names.
    """
    from peft import LoraConfig as PeftConfig

    return PeftConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, use_dora=config.dora,
        target_modules=targets,
    )  # fmt: skip


def add_adapters(stacks: Sequence[nn.Module], config: LoraConfig, default: list[str], setting: str) -> None:
    """Gives the linear layers of a model's blocks adapters, and freezes all else in them.

    The matrices are drawn in host memory, unless a device is set. Magnitudes stay on the meta device: they follow from
    the layers' weights.

    Args:
        stacks: The lists of blocks, on the meta device.
        config: The settings.
        default: Names of the layers, if the settings name none.
        setting: Name of the settings, for the message.

    Raises:
        ConfigError: A name is that of no linear layer.
    """
    from peft import inject_adapter_in_model

    targets = config.targets or default
    modules = [pair for blocks in stacks for block in blocks.children() for pair in block.named_modules()]
    linear = sorted({name for name, module in modules if isinstance(module, nn.Linear)})
    for target in targets:
        require(
            any(f".{name}".endswith(f".{target}") for name in linear),
            f"{setting}.targets: the blocks have no linear layer {target}: choose of {', '.join(linear)}",
        )
    for blocks in stacks:
        inject_adapter_in_model(peft_config(config, targets), blocks, low_cpu_mem_usage=True)
        for layer in adapted_layers(blocks):
            inward, outward = layer.lora_A["default"], layer.lora_B["default"]
            inward.weight = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(inward.weight.shape), a=5**0.5))
            outward.weight = nn.Parameter(torch.zeros(outward.weight.shape))


def adapted_layers(module: nn.Module) -> Iterator[Any]:
    """Yields peft's layers in a module. Without adapters there are none, and peft is not imported."""
    return (layer for layer in module.modules() if hasattr(layer, "lora_A") and hasattr(layer, "base_layer"))


def base_of(name: str) -> str:
    """Returns the name of the weight whose rows' lengths a DoRA magnitude has at start."""
    return name.removesuffix(MAGNITUDE) + f"{BASE}weight"


def row_lengths(read: Callable[[Tensor, int], None], width: int) -> Callable[[Tensor, int], None]:
    """Returns a function that fills a flat tensor with the lengths of a matrix's rows, from a given row on.

    Args:
        read: Fills a flat tensor with the matrix's elements, from a given one on.
        width: Elements of a row.
    """

    def lengths(flat: Tensor, start: int) -> None:
        rows = flat.new_empty(flat.numel() * width)
        read(rows, start * width)
        flat.copy_(torch.linalg.norm(rows.view(-1, width), dim=1))

    return lengths


def no_loss(module: nn.Module, states: Tensor) -> Tensor:
    """Returns a zero that gives every adapter in a module a gradient of zero.

    Args:
        module: The module.
        states: Gives dtype and device.
    """
    total = states.new_zeros((), dtype=torch.float32)
    for layer in adapted_layers(module):
        nothing = states.new_zeros(0, layer.in_features)
        plain = not has_magnitude(layer)
        given = layer.lora_B["default"](layer.lora_A["default"](nothing)) if plain else layer(nothing)
        total = total + given.sum().float()
    return total


def has_magnitude(layer: Any) -> bool:
    """Whether one of peft's layers is a DoRA. Its forward reads its parameters outside of their own modules."""
    return len(layer.lora_magnitude_vector) > 0


@torch.no_grad()
def merge_adapters(module: nn.Module) -> None:
    """Adds every adapter to its layer's weight, and puts the plain layer in its place."""
    names = {id(layer): name for name, layer in module.named_modules()}
    for layer in list(adapted_layers(module)):
        layer.merge()
        parent, _, child = names[id(layer)].rpartition(".")
        setattr(module.get_submodule(parent), child, layer.base_layer)
