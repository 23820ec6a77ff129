"""Puts the framework together from the weights its configuration names."""

from vtok.config import ConfigError, ModelConfig
from vtok.decoder import HunyuanDecoder
from vtok.framework import VTokFramework
from vtok.mllm import load_llava
from vtok.text import TextEncoder
from vtok.tokeniser import VTokTokeniser


def build_framework(config: ModelConfig) -> VTokFramework:
    """The framework with pretrained parts and freshly initialised additions, on the CPU, in the checkpoints' dtypes.

    Raises:
        ConfigError: some weights cannot be loaded, or the parts do not fit one another.
    """
    text = TextEncoder.from_pretrained(config)
    mllm, projector, llava_config = load_llava(config.mllm)
    decoder = HunyuanDecoder.from_pretrained(config.decoder)
    require_fit(mllm.dim, decoder)
    tokeniser = VTokTokeniser(config.tokeniser)
    return VTokFramework(config, tokeniser, mllm, projector, llava_config.vision_config.hidden_size, decoder, text)


def require_fit(mllm_dim: int, decoder: HunyuanDecoder) -> None:
    """The decoder reads the language model's hidden states as they are: their widths must agree."""
    wanted = decoder.transformer.config.text_embed_dim
    if wanted != mllm_dim:
        raise ConfigError(
            f"mllm.weights has hidden size {mllm_dim}, but the decoder in decoder.weights reads rows of {wanted}: "
            "choose a pair that fits"
        )
