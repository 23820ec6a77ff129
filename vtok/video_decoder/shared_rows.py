"""Hooks that make a video transformer compute only one rank's rows (see :mod:`vtok.sequence`).

diffusers' transformers embed all tokens, run blocks and project the result back to latents. Hooks cut the embedded
tokens to the rank's own, and gather the projected ones. The modules and their order stay the same, as ZeRO-3 needs.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from vtok.config import require
from vtok.sequence import SequenceGroup


def change_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Makes a module return ``change`` of its output."""

    def changed(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return change(output)

    module.register_forward_hook(changed)


def gather_output(transformer: nn.Module, projection: nn.Module, sequence: SequenceGroup) -> None:
    """Makes the last projection of a transformer return all tokens (B, tokens, d), and not only the rank's own.

    From then on a video with fewer tokens than ranks raises :class:`ConfigError`. diffusers' rotary embedding takes no
    empty tensor.
    """
    tokens = 0

    def count(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        nonlocal tokens
        tokens = tokens_of(module, kwargs["hidden_states"])
        require(
            tokens >= sequence.size,
            f"a video of {tokens} latent tokens is too small for {sequence.size} ranks: lower train.sequence_parallel",
        )

    transformer.register_forward_pre_hook(count, with_kwargs=True)
    change_output(projection, lambda own: sequence.whole(own, tokens))


def tokens_of(transformer: Any, latents: Tensor) -> int:
    """Returns the number of tokens that a transformer makes of latents (B, C, frames, height, width)."""
    config = transformer.config
    size = config["patch_size"]
    patch = (config["patch_size_t"], size, size) if isinstance(size, int) else size
    return math.prod(side // own for side, own in zip(latents.shape[2:], patch))
