"""The framework without its pretrained weights: modules on the meta device, from their configurations.

For planning, the configurations of the published models are written down here, so that a plan needs no network and no
download; a framework that is to get weights takes what lies beside them.
"""

from typing import Any

import torch
from transformers import LlavaNextConfig, Qwen2_5_VLConfig

from vtok.config import ConfigError, ModelConfig
from vtok.decoder import DIFFUSERS_PARTS, HunyuanDecoder, empty_decoder
from vtok.feature_extractor import CLIP_L_336, empty_feature_extractor
from vtok.framework import VTokFramework
from vtok.mllm import empty_mllm
from vtok.tokeniser import build_tokeniser
from vtok.weights import Location, ReadConfig

LLAMA3_8B = dict(
    model_type="llama", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, vocab_size=128320, max_position_embeddings=8192, rope_theta=500000.0, rms_norm_eps=1e-5,
)  # fmt: skip
CLIP_L_336_VISION = dict(model_type="clip_vision_model", **CLIP_L_336)
CLIP_L_TEXT = dict(
    model_type="clip_text_model", hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
)
# As published: the language model's settings are not in a section of their own.
QWEN25_VL_7B = dict(
    model_type=Qwen2_5_VLConfig.model_type, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
    num_attention_heads=28, num_key_value_heads=4, vocab_size=152064, max_position_embeddings=128000,
    rope_theta=1000000.0, rope_scaling=dict(type="mrope", mrope_section=[16, 24, 24]), rms_norm_eps=1e-6,
    vision_config=dict(
        depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584, tokens_per_second=2
    ),
)  # fmt: skip

# Hub id -> subfolder -> configuration; what is not written out is the library's default, which is the published value.
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "llava-hf/llama3-llava-next-8b-hf": {
        "": dict(
            model_type=LlavaNextConfig.model_type, text_config=LLAMA3_8B, vision_config=CLIP_L_336_VISION,
            image_token_index=128256,
        )
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {"": QWEN25_VL_7B},
    "openai/clip-vit-large-patch14-336": {"": CLIP_L_336_VISION},
    "hunyuanvideo-community/HunyuanVideo": {
        **{subfolder: dict(_class_name=kind.__name__) for subfolder, kind in DIFFUSERS_PARTS.items()},
        "text_encoder_2": CLIP_L_TEXT,
    },
}  # fmt: skip


def published_or_read(location: Location, name: str) -> dict[str, Any]:
    """A part's configuration, from what is written down here if its weights are published ones."""
    if location.weights in PUBLISHED:
        return PUBLISHED[location.weights][location.subfolder]
    return location.read_json(name)


def meta_framework(config: ModelConfig) -> VTokFramework:
    """The framework on the meta device: every shape, no storage, no tokenizers."""
    with torch.device("meta"):
        return assemble(config, published_or_read)


def assemble(config: ModelConfig, read_config: ReadConfig = Location.read_json) -> VTokFramework:
    """The framework with its pretrained parts on the meta device and the others as torch draws them; no tokenizers.

    Raises:
        ConfigError: a configuration is missing or of another architecture, or the parts do not fit one another.
    """
    mllm, projector, projector_dim = empty_mllm(config.mllm, read_config)
    decoder = empty_decoder(config.decoder, read_config) if config.generates else None
    if decoder is not None:
        require_fit(mllm.dim, decoder)
    tokeniser = build_tokeniser(config.tokeniser, empty_feature_extractor(config.tokeniser, read_config))
    return VTokFramework(config, tokeniser, mllm, projector, projector_dim, decoder, None)


def require_fit(mllm_dim: int, decoder: HunyuanDecoder) -> None:
    """The decoder reads the language model's hidden states as they are: their widths must agree."""
    wanted = decoder.transformer.config.text_embed_dim
    if wanted != mllm_dim:
        raise ConfigError(
            f"mllm.weights has hidden size {mllm_dim}, but the decoder in decoder.weights reads rows of {wanted}: "
            "choose a pair that fits"
        )
