"""What the language model's gradient checkpointing saves."""

import pytest
import torch
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from support.live_memory import LiveMemory
from vtok.assembly.architectures import LLAMA3_8B
from vtok.config import MLLMConfig
from vtok.mllm.llava_next import split_llava

TINY_VISION = dict(model_type="clip_vision_model", hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                   num_attention_heads=1, image_size=28, patch_size=14)  # fmt: skip


def activations(width: int, layers: int, length: int, checkpointing: bool, rows: int = 2) -> tuple[int, int]:
    """Bytes alive after the forward of a LLaMA-3 in bf16, and at the peak of forward and backward.

    Args:
        width: instead of LLaMA-3-8B's 4096; what else is wide, and the heads, in proportion.
        rows: of one sample: one to understand, one to generate.
    """
    text = LLAMA3_8B | dict(
        hidden_size=width, intermediate_size=width * 7 // 2, num_attention_heads=width // 128,
        num_key_value_heads=width // 512, num_hidden_layers=layers, vocab_size=64, head_dim=128,
    )  # fmt: skip
    config = LlavaNextConfig(text_config=text, vision_config=TINY_VISION, image_token_index=63)
    llava = LlavaNextForConditionalGeneration(config).to(torch.bfloat16)
    mllm = split_llava(llava, MLLMConfig(gradient_checkpointing=checkpointing))[0].train()
    for parameter in mllm.parameters():  # the gradients' memory is the engine's matter
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    embeddings = torch.randn(rows, length, width, dtype=torch.bfloat16, requires_grad=True)
    with LiveMemory([*mllm.parameters(), *mllm.buffers(), embeddings]) as memory:
        hidden = mllm(embeddings)
        kept = memory.alive()
        (hidden.last.float().sum() + hidden.conditioning.float().sum()).backward()
    return kept, memory.peak


@pytest.mark.slow
def test_checkpointing_keeps_the_input_of_each_block_and_one_block_s_activations():
    width, layers, length = 512, 8, 64
    block_input = 2 * length * width * 2  # bf16
    kept, peak = activations(width, layers, length, checkpointing=False)
    kept_with, peak_with = activations(width, layers, length, checkpointing=True)
    assert kept_with < (layers + 4) * block_input  # and the final norm's
    assert peak_with - kept_with < 2 * kept / layers
    assert kept > 10 * kept_with and peak > 3 * peak_with
