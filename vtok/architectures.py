"""The framework without its weights: modules on the meta device, for counting and planning.

Architectures come from the ``config.json`` of a local folder or the hub's cache; those of the published models are
written down here, so that a plan needs no network and no download.
"""

import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

from vtok.build import require_fit
from vtok.config import ModelConfig, VTokConfig
from vtok.decoder import HunyuanDecoder
from vtok.feature_extractor import CLIP_L_336, CLIPFeatureExtractor, VGG19FeatureExtractor
from vtok.framework import VTokFramework
from vtok.mllm import split_llava
from vtok.tokeniser import VTokTokeniser

LLAMA3_8B = dict(
    model_type="llama", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, vocab_size=128320, max_position_embeddings=8192, rope_theta=500000.0, rms_norm_eps=1e-5,
)  # fmt: skip
CLIP_L_TEXT = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)


def llava_config(weights: str) -> LlavaNextConfig:
    """LLaVA-Next's configuration, by folder or hub id."""
    if weights == "llava-hf/llama3-llava-next-8b-hf":
        vision = dict(model_type="clip_vision_model", **CLIP_L_336)
        return LlavaNextConfig(text_config=LLAMA3_8B, vision_config=vision, image_token_index=128256)
    return LlavaNextConfig.from_pretrained(weights)


def decoder_part(kind: type, weights: str, subfolder: str) -> object:
    """A diffusers part of the decoder; diffusers' own defaults are HunyuanVideo's published values."""
    if weights == "hunyuanvideo-community/HunyuanVideo":
        return kind()
    return kind.from_config(kind.load_config(weights, subfolder=subfolder))


def clip_text_config(weights: str) -> CLIPTextConfig:
    if weights == "hunyuanvideo-community/HunyuanVideo":
        return CLIPTextConfig(**CLIP_L_TEXT)
    return CLIPTextConfig.from_pretrained(weights, subfolder="text_encoder_2")


def meta_feature_extractor(config: VTokConfig) -> nn.Module:
    """``F`` without weights, frozen."""
    if config.backbone == "vgg19":
        return VGG19FeatureExtractor(config.vgg_layer_index).requires_grad_(False)
    if config.weights in (None, "openai/clip-vit-large-patch14-336"):
        clip = CLIPVisionConfig(**CLIP_L_336 | (config.clip_config or {}))
    else:
        clip = CLIPVisionConfig.from_pretrained(config.weights)
    return CLIPFeatureExtractor(CLIPVisionModel(clip)).requires_grad_(False)


def meta_framework(config: ModelConfig) -> VTokFramework:
    """The framework on the meta device: every shape, no storage, no tokenizers."""
    with torch.device("meta"):
        llava = LlavaNextForConditionalGeneration(llava_config(config.mllm.weights))
        mllm, projector, llava_cfg = split_llava(llava, config.mllm)
        weights = config.decoder.weights
        decoder = HunyuanDecoder(
            config.decoder,
            decoder_part(HunyuanVideoTransformer3DModel, weights, "transformer"),
            decoder_part(AutoencoderKLHunyuanVideo, weights, "vae"),
            CLIPTextModel(clip_text_config(weights)),
            decoder_part(FlowMatchEulerDiscreteScheduler, weights, "scheduler"),
        )
        require_fit(mllm.dim, decoder)
        tokeniser = VTokTokeniser(config.tokeniser, meta_feature_extractor(config.tokeniser))
        return VTokFramework(config, tokeniser, mllm, projector, llava_cfg.vision_config.hidden_size, decoder, None)
