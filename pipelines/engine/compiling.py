"""``train.compile: blocks``: the blocks of language model and diffusion transformer run under ``torch.compile``.

All blocks of a stack share one compilation, since they run the same code on weights of the same shapes.

- ZeRO-3 gathers a block whole, around its forward and its backward. So none of DeepSpeed's hooks is inside a compiled
  graph.
- The attention itself stays as it is. It depends on the lengths of rows, which change with every batch, and is one
  fused kernel anyway.
- Lengths become symbols when they change for the first time. So a run compiles in its first steps only.
- Without gradients (validation, captions, videos) blocks run as they are: their shapes are many.
- The autoencoder stays as it is. It takes videos in pieces and tiles, and each shape would be compiled anew.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from pipelines.engine.setup import blocks_of
from vtok.framework import VTokFramework
from vtok.mllm.packed_attention import packed_sdpa
from vtok.video_decoder.hunyuan import HunyuanDecoder

# The packed attention, at which torch.compile ends one graph and begins the next.
APART = "vtok_packed_sdpa_apart"


def compile_blocks(framework: VTokFramework, backend: str = "inductor") -> None:
    """Compiles the blocks at their first use. Call it before the engine is built.

    Args:
        framework: The framework. Names of parameters do not change.
        backend: torch.compile's.
    """
    AttentionInterface.register(APART, torch.compiler.disable(packed_sdpa))
    AttentionMaskInterface.register(APART, sdpa_mask)
    framework.mllm.causal_lm.set_attn_implementation(APART)
    if isinstance(framework.decoder, HunyuanDecoder):
        attention: Any = framework.decoder.attention
        attention.attend = torch.compiler.disable(attention.attend)
    for block in blocks_of(framework):
        compiled = torch.compile(block.forward, backend=backend)
        block.forward = with_gradients(compiled, block.forward)  # type: ignore[method-assign]


def with_gradients(compiled: Callable, plain: Callable) -> Callable:
    """Returns a function that is ``compiled`` where gradients are on, else ``plain``."""

    def forward(*args: Any, **options: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else plain)(*args, **options)

    return forward
