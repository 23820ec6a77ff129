"""``llama``: a bare LLaMA, such as HunyuanVideo's text encoder apart from its tower and projector. phi_vis is new."""

from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from vtok.config import MLLMConfig
from vtok.mllm.base import MLLM, Published, Split, prepared
from vtok.mllm.llava_next import PLACEHOLDER

# The names of a LlamaForCausalLM, then those of a LlamaModel, which has no head of its own.
KEYS = {
    "mllm.causal_lm.model.": ("model.", ""),
    "mllm.causal_lm.lm_head.": ("lm_head.",),
}


def split_llama(llama: PreTrainedModel, config: MLLMConfig) -> Split:
    """Takes a ``LlamaForCausalLM`` whole."""
    return Split(MLLM(prepared(llama, config)), nn.Identity(), projector_dim=0)


LLAMA = Published("LLaMA", LlamaConfig, LlamaForCausalLM, KEYS, split_llama, PLACEHOLDER, template_lengths=(5, 15))
