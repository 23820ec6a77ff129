"""The video decoder that the configuration names: to add one, write its file in ``decoders/`` and enter it here."""

import torch
from torch import nn
from transformers import AutoTokenizer

from vtok.config import DecoderConfig
from vtok.video_decoder.base import CaptionTokenizer, GenerationRow, Posterior, VideoDecoder, encode_video
from vtok.video_decoder.hunyuan import HunyuanDecoder
from vtok.video_decoder.wan import WanDecoder
from vtok.weights import Location, Part, ReadConfig
from vtok.weights.materialise import materialise, whole
from vtok.weights.shipped import folder_or_id

__all__ = [
    "GenerationRow", "Posterior", "VideoDecoder", "build_vae", "caption_tokenizer", "decoder_kind", "decoder_parts",
    "empty_decoder", "encode_video",
]  # fmt: skip

DECODERS: dict[str, type[VideoDecoder]] = {"hunyuan": HunyuanDecoder, "wan": WanDecoder}


def decoder_kind(config: DecoderConfig) -> type[VideoDecoder]:
    return DECODERS[config.kind]


def decoder_parts(config: DecoderConfig) -> dict[str, Part]:
    """The decoder's pretrained parts, by the name of their module in it."""
    return decoder_kind(config).pretrained_parts(config)


def empty_decoder(config: DecoderConfig, states_dim: int, read_config: ReadConfig = Location.read_json) -> VideoDecoder:
    """The decoder with its pretrained modules on the meta device; what it trains is drawn.

    Args:
        states_dim: width of the language model's states.

    Raises:
        ConfigError: a configuration is missing or of another class, or the parts do not fit one another.
    """
    return decoder_kind(config).empty(config, states_dim, read_config)


def build_vae(config: DecoderConfig) -> nn.Module:
    """The autoencoder alone, frozen, in fp32 on the CPU.

    Raises:
        ConfigError: it is missing, or does not fit.
    """
    with torch.device("meta"):
        vae = decoder_kind(config).empty_vae(config, Location.read_json)
    holder = nn.ModuleDict({"vae": vae.requires_grad_(False).eval()})
    return materialise(holder, [decoder_parts(config)["vae"]], whole())["vae"]


def caption_tokenizer(config: DecoderConfig) -> CaptionTokenizer:
    """Captions to the token ids of the decoder's own text encoder; OSError or ValueError if there is no tokenizer."""
    kind = decoder_kind(config)
    return kind.caption_tokenizer(
        AutoTokenizer.from_pretrained(folder_or_id(config.weights), subfolder=kind.tokenizer, revision=config.revision)
    )
