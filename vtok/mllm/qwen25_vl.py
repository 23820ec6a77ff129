"""``qwen2.5-vl``: Qwen2.5-VL's language model and head. It only understands.

Its vision tower and merger are the backbone of the same name (:mod:`vtok.feature_extractor.qwen25_vl`). So tokens
are in the language model's space already, and phi_vis is the identity.
"""

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2ForCausalLM
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig, Qwen2_5_VLVisionConfig

from vtok.config import MLLMConfig
from vtok.mllm.base import MLLM, Placeholder, Published, Split, causal_lm_of

# The names of transformers 5, then the published ones.
KEYS = {
    "mllm.causal_lm.model.": ("model.language_model.", "model."),
    "mllm.causal_lm.lm_head.": ("lm_head.",),
}


def split_qwen(qwen: PreTrainedModel, config: MLLMConfig) -> Split:
    """Takes the language model out of a ``Qwen2_5_VLForConditionalGeneration``."""
    assert isinstance(qwen, Qwen2_5_VLForConditionalGeneration)
    text, vision = qwen.config.text_config, qwen.config.vision_config
    assert isinstance(text, Qwen2_5_VLTextConfig) and isinstance(vision, Qwen2_5_VLVisionConfig)
    with torch.device("meta"):  # an empty shell: transformers has no class for this language model without its tower
        shell = Qwen2ForCausalLM(text)  # type: ignore[arg-type]  # reads fields that both configurations have
    mllm = MLLM(causal_lm_of(shell, qwen, config), vision.tokens_per_second)
    return Split(mllm, nn.Identity(), vision.out_hidden_size)


VIDEO_TOKEN = "<|video_pad|>"
QWEN25_VL = Published(
    "Qwen2.5-VL", Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, KEYS, split_qwen,
    Placeholder("video", VIDEO_TOKEN), template_lengths=(15, 10),
)  # fmt: skip
