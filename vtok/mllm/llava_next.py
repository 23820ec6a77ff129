"""``llava-next``: LLaVA-Next's language model and head, its projector handed over to phi_vis."""

import torch
from transformers import AutoModelForCausalLM, LlavaNextConfig, LlavaNextForConditionalGeneration

from vtok.config import MLLMConfig
from vtok.mllm.base import MLLM, Published, Split, causal_lm_of

# As transformers 5 names them and as 4 did.
KEYS = {
    "mllm.causal_lm.model.": ("model.language_model.", "language_model.model."),
    "mllm.causal_lm.lm_head.": ("lm_head.", "language_model.lm_head."),
    "projection.projector.linear_": ("model.multi_modal_projector.linear_", "multi_modal_projector.linear_"),
}


def split_llava(llava: LlavaNextForConditionalGeneration, config: MLLMConfig) -> Split:
    with torch.device("meta"):  # only a shell with the right class
        shell = AutoModelForCausalLM.from_config(llava.config.text_config)
    mllm = MLLM(causal_lm_of(shell, llava, config))
    return Split(mllm, llava.model.multi_modal_projector, llava.config.vision_config.hidden_size)


LLAVA_NEXT = Published("LLaVA-Next", LlavaNextConfig, LlavaNextForConditionalGeneration, KEYS, split_llava)
