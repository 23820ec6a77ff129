"""``llava-next`` and ``llava``: the language model and head of a LLaVA. Its projector becomes phi_vis.

HunyuanVideo's text encoder, ``llava-llama-3-8b-v1_1``, is a ``llava``.
"""

import torch
from transformers import (
    AutoModelForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from vtok.config import MLLMConfig
from vtok.mllm.base import MLLM, Placeholder, Published, Split, causal_lm_of

# The names of transformers 5, then those of transformers 4.
KEYS = {
    "mllm.causal_lm.model.": ("model.language_model.", "language_model.model."),
    "mllm.causal_lm.lm_head.": ("lm_head.", "language_model.lm_head."),
    "projection.projector.linear_": ("model.multi_modal_projector.linear_", "multi_modal_projector.linear_"),
}


def split_llava(llava: PreTrainedModel, config: MLLMConfig) -> Split:
    """Takes language model and projector out of a ``LlavaNextForConditionalGeneration`` or its predecessor."""
    assert isinstance(llava, LlavaNextForConditionalGeneration | LlavaForConditionalGeneration)
    text, vision = llava.config.text_config, llava.config.vision_config
    assert isinstance(text, PreTrainedConfig) and isinstance(vision, PreTrainedConfig)
    with torch.device("meta"):  # only an empty shell of the right class
        shell = AutoModelForCausalLM.from_config(text)
    mllm = MLLM(causal_lm_of(shell, llava, config))
    return Split(mllm, llava.model.multi_modal_projector, vision.hidden_size)


IMAGE_TOKEN = "<image>"
PLACEHOLDER = Placeholder("image", IMAGE_TOKEN)
LLAMA3_HEADER = "<|start_header_id|>"
LLAMA3_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)


def llama3_system(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Returns the message of the system of the LLaVA-Next with LLaMA-3; others have other messages."""
    return LLAMA3_SYSTEM if LLAMA3_HEADER in tokenizer.get_vocab() else None


LLAVA_NEXT = Published(
    "LLaVA-Next", LlavaNextConfig, LlavaNextForConditionalGeneration, KEYS, split_llava, PLACEHOLDER,
    template_lengths=(5, 15), system=llama3_system,
)  # fmt: skip
LLAVA = Published(
    "LLaVA", LlavaConfig, LlavaForConditionalGeneration, KEYS, split_llava, PLACEHOLDER, template_lengths=(5, 15)
)
