"""Hooks that make a video transformer compute only one rank's rows (see :mod:`vtok.sequence`).

diffusers' transformers embed all tokens, run blocks and project the result back to latents. Hooks cut the embedded
tokens to the rank's own, and gather the projected ones. The modules and their order stay the same, as ZeRO-3 needs.

A video with fewer tokens than ranks, such as the small black one of a text, is not cut: each rank computes all of it.
Its gradients are then whole on every rank, and their average is the same.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from vtok.sequence import SequenceGroup


def change_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Makes a module return ``change`` of its output."""

    def changed(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return change(output)

    module.register_forward_hook(changed)


def own_tokens(sequence: SequenceGroup, tokens: Tensor, dim: int) -> Tensor:
    """Returns the rank's own of all tokens of a video, or all if the video is not cut."""
    return sequence.own(tokens, dim) if tokens.shape[dim] >= sequence.size else tokens


def gather_output(transformer: nn.Module, projection: nn.Module, sequence: SequenceGroup) -> Callable[[], int]:
    """Makes the last projection of a transformer return all tokens (B, tokens, d), and not only the rank's own.

    Returns:
        Tells the number of tokens of the forward that runs.
    """
    tokens = 0

    def count(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        nonlocal tokens
        tokens = tokens_of(module, kwargs["hidden_states"])

    transformer.register_forward_pre_hook(count, with_kwargs=True)
    change_output(projection, lambda own: sequence.whole(own, tokens) if tokens >= sequence.size else own)
    return lambda: tokens


def tokens_of(transformer: Any, latents: Tensor) -> int:
    """Returns the number of tokens that a transformer makes of latents (B, C, frames, height, width)."""
    config = transformer.config
    size = config["patch_size"]
    patch = (config["patch_size_t"], size, size) if isinstance(size, int) else size
    return math.prod(side // own for side, own in zip(latents.shape[2:], patch))
