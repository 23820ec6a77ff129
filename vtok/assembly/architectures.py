"""Builds the framework without its pretrained weights: modules on the meta device, from their configurations.

A framework that gets weights reads the configurations beside them. Plans use the published configurations in this file,
so they need no network and no download.
"""

from typing import Any

import torch
from transformers import LlavaConfig, LlavaNextConfig, Qwen2_5_VLConfig

from vtok.config import ModelConfig
from vtok.feature_extractor import CLIP_L_336, empty_feature_extractor
from vtok.framework import VTokFramework
from vtok.mllm import empty_mllm
from vtok.tokeniser import build_tokeniser
from vtok.video_decoder import empty_decoder
from vtok.video_decoder.hunyuan import DIFFUSERS_PARTS
from vtok.weights import Location, ReadConfig

LLAMA3_8B = dict(
    model_type="llama", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, vocab_size=128320, max_position_embeddings=8192, rope_theta=500000.0, rms_norm_eps=1e-5,
)  # fmt: skip
CLIP_L_336_VISION = dict(model_type="clip_vision_model", **CLIP_L_336)
CLIP_L_TEXT = dict(
    model_type="clip_text_model", hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
)
# As published: the language model's settings have no section of their own.
QWEN25_VL_7B = dict(
    model_type=Qwen2_5_VLConfig.model_type, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
    num_attention_heads=28, num_key_value_heads=4, vocab_size=152064, max_position_embeddings=128000,
    rope_theta=1000000.0, rope_scaling=dict(type="mrope", mrope_section=[16, 24, 24]), rms_norm_eps=1e-6,
    vision_config=dict(
        depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584, tokens_per_second=2
    ),
)  # fmt: skip

UMT5_XXL = dict(model_type="umt5", d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, vocab_size=256384)
WAN_EXPERT = dict(_class_name="WanTransformer3DModel")
WAN_1_3B = dict(_class_name="WanTransformer3DModel", num_attention_heads=12, num_layers=30, ffn_dim=8960)
WAN_5B = dict(
    _class_name="WanTransformer3DModel", num_attention_heads=24, num_layers=30, ffn_dim=14336, in_channels=48,
    out_channels=48,
)  # fmt: skip
WAN_5B_VAE = dict(
    _class_name="AutoencoderKLWan", base_dim=160, decoder_base_dim=256, z_dim=48, in_channels=12, out_channels=12,
    is_residual=True, patch_size=2, scale_factor_spatial=16,
    latents_mean=[
        -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
        0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
        -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
        -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
    ],
    latents_std=[
        0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
        0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
        0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
        0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
    ],
)  # fmt: skip


def wan_scheduler(shift: float) -> dict[str, Any]:
    """Returns the configuration of Wan's scheduler."""
    return dict(
        _class_name="UniPCMultistepScheduler", prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


# Hub id -> subfolder -> configuration. Values that are not here are library defaults, which equal the published ones.
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "llava-hf/llama3-llava-next-8b-hf": {
        "": dict(
            model_type=LlavaNextConfig.model_type, text_config=LLAMA3_8B, vision_config=CLIP_L_336_VISION,
            image_token_index=128256,
        )
    },
    "xtuner/llava-llama-3-8b-v1_1-transformers": {  # HunyuanVideo's text encoder
        "": dict(
            model_type=LlavaConfig.model_type, text_config=LLAMA3_8B, vision_config=CLIP_L_336_VISION,
            image_token_index=128257,
        )
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {"": QWEN25_VL_7B},
    "openai/clip-vit-large-patch14-336": {"": CLIP_L_336_VISION},
    "hunyuanvideo-community/HunyuanVideo": {
        **{subfolder: dict(_class_name=kind.__name__) for subfolder, kind in DIFFUSERS_PARTS.items()},
        "text_encoder_2": CLIP_L_TEXT,
    },
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": {
        "": dict(_class_name="WanPipeline"),
        "transformer": WAN_1_3B,
        "vae": dict(_class_name="AutoencoderKLWan"),
        "text_encoder": UMT5_XXL,
        "scheduler": wan_scheduler(3.0),
    },
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": {
        "": dict(_class_name="WanPipeline", boundary_ratio=0.875),
        "transformer": WAN_EXPERT,
        "transformer_2": WAN_EXPERT,
        "vae": dict(_class_name="AutoencoderKLWan"),
        "text_encoder": UMT5_XXL,
        "scheduler": wan_scheduler(3.0),
    },
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": {
        "": dict(_class_name="WanPipeline", expand_timesteps=True),
        "transformer": WAN_5B,
        "vae": WAN_5B_VAE,
        "text_encoder": UMT5_XXL,
        "scheduler": wan_scheduler(5.0),
    },
}  # fmt: skip


def published_or_read(location: Location, name: str) -> dict[str, Any]:
    """Returns a part's configuration: from ``PUBLISHED`` if it has these weights, else from beside the weights."""
    if location.weights not in PUBLISHED:
        return location.read_json(name)
    if location.subfolder not in PUBLISHED[location.weights]:
        raise location.error("the published model has no such part")
    return PUBLISHED[location.weights][location.subfolder]


def meta_framework(config: ModelConfig) -> VTokFramework:
    """Builds the framework on the meta device: all shapes, no storage, no tokenizers."""
    with torch.device("meta"):
        return assemble(config, published_or_read)


def assemble(config: ModelConfig, read_config: ReadConfig = Location.read_json) -> VTokFramework:
    """Builds the framework with its pretrained parts on the meta device, other parts random, without tokenizers.

    Args:
        config: The settings.
        read_config: Reads an architecture that is stored beside the weights.

    Raises:
        ConfigError: A configuration is missing or of another architecture, or the parts do not fit together.
    """
    mllm, projector, projector_dim = empty_mllm(config.mllm, read_config)
    decoder = empty_decoder(config.decoder, mllm.dim, read_config) if config.generates else None
    tokeniser = build_tokeniser(config.tokeniser, empty_feature_extractor(config.tokeniser, read_config))
    return VTokFramework(config, tokeniser, mllm, projector, projector_dim, decoder, None)
