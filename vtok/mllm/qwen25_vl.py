"""``qwen2.5-vl``: Qwen2.5-VL's language model and head, which understand only.

Its tower and merger are the tokeniser's backbone of the same name (:mod:`vtok.feature_extractor.qwen25_vl`). Tokens are
therefore in the language model's space already, and phi_vis is the identity.
"""

import torch
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2ForCausalLM

from vtok.config import MLLMConfig
from vtok.mllm.base import MLLM, Published, Split, causal_lm_of

# As transformers 5 names them, and as they were published.
KEYS = {
    "mllm.causal_lm.model.": ("model.language_model.", "model."),
    "mllm.causal_lm.lm_head.": ("lm_head.",),
}


def split_qwen(qwen: Qwen2_5_VLForConditionalGeneration, config: MLLMConfig) -> Split:
    with torch.device("meta"):  # only a shell: transformers has no class for this language model without its tower
        shell = Qwen2ForCausalLM(qwen.config.text_config)
    vision = qwen.config.vision_config
    mllm = MLLM(causal_lm_of(shell, qwen, config), vision.tokens_per_second)
    return Split(mllm, nn.Identity(), vision.out_hidden_size)


QWEN25_VL = Published("Qwen2.5-VL", Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, KEYS, split_qwen)
