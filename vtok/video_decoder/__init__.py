"""The video decoder that the configuration names.

To add a decoder, write a subclass of :class:`vtok.video_decoder.base.VideoDecoder` in a file here and enter it in
``DECODERS``.
"""

from typing import TypeVar

import torch
from torch import nn

from vtok.config import DecoderConfig, member
from vtok.fp8 import use_fp8
from vtok.lora import TRANSFORMER_TARGETS, add_adapters
from vtok.module_table import ModuleTable
from vtok.video_decoder.autoencoder import Autoencoder
from vtok.video_decoder.base import CaptionTokenizer, GenerationRow, Posterior, VideoDecoder, decode_video, encode_video
from vtok.video_decoder.hunyuan import HunyuanDecoder
from vtok.video_decoder.wan import WanDecoder
from vtok.weights import Location, Part, ReadConfig
from vtok.weights.materialise import materialise, whole
from vtok.weights.tokenizer import load_tokenizer

__all__ = [
    "Autoencoder", "GenerationRow", "Posterior", "VideoDecoder", "build_text_encoder", "build_vae",
    "caption_tokenizer", "decode_video",
    "decoder_kind", "decoder_parts", "empty_decoder", "encode_video",
]  # fmt: skip

M = TypeVar("M", bound=nn.Module)

DECODERS: dict[str, type[VideoDecoder]] = {"hunyuan": HunyuanDecoder, "wan": WanDecoder}


def decoder_kind(config: DecoderConfig) -> type[VideoDecoder]:
    """Returns the class of ``config.kind``."""
    return member(DECODERS, config.kind, "decoder.kind")


def decoder_parts(config: DecoderConfig) -> dict[str, Part]:
    """Returns the decoder's pretrained parts, by the names of their modules."""
    return decoder_kind(config).pretrained_parts(config)


def empty_decoder(config: DecoderConfig, states_dim: int, read_config: ReadConfig = Location.read_json) -> VideoDecoder:
    """Builds the decoder with its pretrained modules on the meta device. Modules that it trains get random values.

    The transformer gets adapters or fp8 layers if the settings ask for them.

    Args:
        config: The settings.
        states_dim: Width of the language model's states.
        read_config: Reads an architecture that is stored beside the weights.

    Raises:
        ConfigError: A configuration is missing or of another class, or the parts or adapters do not fit together.
    """
    decoder = decoder_kind(config).empty(config, states_dim, read_config)
    if config.fp8 is not None:
        use_fp8(decoder.block_stacks(), config.fp8)
    if config.lora is not None:
        add_adapters(decoder.block_stacks(), config.lora, TRANSFORMER_TARGETS, "decoder.lora")
    return decoder


def build_vae(config: DecoderConfig) -> Autoencoder:
    """Builds the autoencoder alone: frozen, in fp32, on the CPU.

    Raises:
        ConfigError: It is missing or does not fit.
    """
    with torch.device("meta"):
        vae = decoder_kind(config).empty_vae(config, Location.read_json)
    return alone("vae", vae, config)


def build_text_encoder(config: DecoderConfig) -> nn.Module:
    """Builds the decoder's own text encoder alone: frozen, in fp32, on the CPU.

    Raises:
        ConfigError: It is missing or does not fit.
    """
    with torch.device("meta"):
        text_encoder = decoder_kind(config).empty_text_encoder(config, Location.read_json)
    return alone("text_encoder", text_encoder, config)


def alone(name: str, part: M, config: DecoderConfig) -> M:
    """Gives one part of a decoder its weights: frozen, in fp32, on the CPU."""
    holder: ModuleTable[M] = ModuleTable({name: part.requires_grad_(False).eval()})
    return materialise(holder, [decoder_parts(config)[name]], whole())[name]


def caption_tokenizer(config: DecoderConfig) -> CaptionTokenizer:
    """Loads the function that turns captions into token ids of the decoder's own text encoder.

    Raises:
        ConfigError: There is no tokenizer, or it cannot be used.
    """
    kind = decoder_kind(config)
    return kind.caption_tokenizer(load_tokenizer(kind.location_of(config, kind.tokenizer)))
