"""``llava-next``: LLaVA-Next's language model and head. Its projector becomes phi_vis."""

import torch
from transformers import (
    AutoModelForCausalLM,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
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
    """Takes language model and projector out of a ``LlavaNextForConditionalGeneration``."""
    assert isinstance(llava, LlavaNextForConditionalGeneration)
    text, vision = llava.config.text_config, llava.config.vision_config
    assert isinstance(text, PreTrainedConfig) and isinstance(vision, PreTrainedConfig)
    with torch.device("meta"):  # only an empty shell of the right class
        shell = AutoModelForCausalLM.from_config(text)
    mllm = MLLM(causal_lm_of(shell, llava, config))
    return Split(mllm, llava.model.multi_modal_projector, vision.hidden_size)


IMAGE_TOKEN = "<image>"
LLAVA_NEXT = Published(
    "LLaVA-Next", LlavaNextConfig, LlavaNextForConditionalGeneration, KEYS, split_llava,
    Placeholder("image", IMAGE_TOKEN), template_lengths=(5, 15),
)  # fmt: skip
