"""HunyuanVideo's attention without its mask where the mask says nothing.

Diffusers always makes one, over video and conditioning. No flash kernel takes a mask, also if all of it is true.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch.utils.checkpoint
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0
from torch import Tensor, nn


class OptionalMask(HunyuanVideoAttnProcessor2_0):
    """The processor of all joint attentions of a transformer; the refiner of the conditioning keeps its own."""

    def __init__(self, transformer: HunyuanVideoTransformer3DModel):
        super().__init__()
        self._masked = True
        for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
            block.attn.set_processor(self)

    @contextmanager
    def masked(self, masked: bool) -> Iterator[None]:
        """Use the mask, or attend to everything."""
        before, self._masked = self._masked, masked
        try:
            yield
        finally:
            self._masked = before

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Tensor | None = None,  # by name: diffusers drops what a processor does not name
    ) -> tuple[Tensor, Tensor]:
        mask = attention_mask if self._masked else None
        return super().__call__(attn, hidden_states, encoder_hidden_states, mask, image_rotary_emb)

    def checkpoint(self, block: nn.Module, *args) -> tuple[Tensor, ...]:
        """Run a block under gradient checkpointing; it is run again as it was, whatever has been asked for since."""
        contexts = partial(_first_and_again, self.masked, self._masked)
        return torch.utils.checkpoint.checkpoint(block, *args, use_reentrant=False, context_fn=contexts)


def _first_and_again(masked: Callable, then: bool) -> tuple:
    """The contexts in which torch's checkpointing runs a function the first time and again."""
    return nullcontext(), masked(then)
