"""HunyuanVideo as the video decoder: its diffusion transformer and autoencoder, from diffusers.

The language model's states replace those of the text encoder that the transformer was trained with: states at the
prompt, then states at the visual tokens. Template, pooled CLIP text, guidance and sampling are those of diffusers'
``HunyuanVideoPipeline``. Nothing is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import HunyuanVideoPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerBase

from vtok.config import DecoderConfig, require
from vtok.devices import to_device
from vtok.sequence import SequenceGroup
from vtok.video_decoder.base import (
    FRAMES_PER_LATENT,
    TIMESTEP_SCALE,
    CaptionTokenizer,
    GenerationRow,
    VideoDecoder,
)
from vtok.video_decoder.hunyuan_mask import UnmaskedAttention
from vtok.video_decoder.patch_autoencoder import PatchAutoencoder
from vtok.video_decoder.shared_pieces import share_pieces
from vtok.video_decoder.shared_rows import change_output, gather_output, own_tokens
from vtok.video_decoder.stored import diffusers_part, transformers_part
from vtok.video_decoder.tiling import require_tiling
from vtok.vidtok.latent_space import LatentConfig, VidTokAutoencoder
from vtok.weights import DIFFUSERS_FILES, TRANSFORMERS_FILES, Location, Part, ReadConfig

CLIP_TEXT_LENGTH = 77

# Subfolders of HunyuanVideo's repository, and the classes that diffusers writes into their configurations.
DIFFUSERS_PARTS: dict[str, type[ConfigMixin]] = {
    "transformer": HunyuanVideoTransformer3DModel,
    "vae": AutoencoderKLHunyuanVideo,
    "scheduler": FlowMatchEulerDiscreteScheduler,
}

# The classes that HunyuanVideo's folder ``vae`` may hold. Its configuration names one.
AUTOENCODERS = (AutoencoderKLHunyuanVideo, PatchAutoencoder)

HunyuanAutoencoder = AutoencoderKLHunyuanVideo | PatchAutoencoder | VidTokAutoencoder


@dataclass
class Conditioning:
    """The diffusion transformer's conditioning for B videos.

    Attributes:
        rows: (B, R, d), hidden states. Each clip's own rows come first, then padding.
        counts: The number of each clip's own rows, at most R.
        pooled: (B, d_pooled), CLIP's pooled text vector of the prompt.
    """

    rows: Tensor
    counts: list[int]
    pooled: Tensor

    @property
    def mask(self) -> Tensor:
        """(B, R), on the CPU, where the attention reads it. Hunyuan relies on a prefix of ones per clip."""
        return torch.arange(self.rows.shape[1]) < torch.tensor(self.counts)[:, None]


class HunyuanDecoder(VideoDecoder):
    """HunyuanVideo, frozen."""

    transformer: HunyuanVideoTransformer3DModel
    text_encoder: CLIPTextModel
    stacks = ("transformer_blocks", "single_transformer_blocks")
    tokenizer = "tokenizer_2"

    def __init__(
        self,
        config: DecoderConfig,
        transformer: HunyuanVideoTransformer3DModel,
        vae: HunyuanAutoencoder,
        text_encoder: CLIPTextModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ):
        super().__init__(config, transformer, vae, text_encoder, scheduler)
        latents = latent_config(vae)
        self.latent_channels = latents.latent_channels
        self.space_factor = latents.spatial_compression_ratio
        self.scaling_factor = latents.scaling_factor
        self.attention = UnmaskedAttention(transformer)
        if config.gradient_checkpointing:
            transformer.enable_gradient_checkpointing(self.attention.checkpoint)

    @staticmethod
    def location_of(config: DecoderConfig, subfolder: str) -> Location:
        if subfolder == "vae" and config.vae is not None:
            return Location("VidTok", "decoder.vae", config.vae)
        return Location(f"HunyuanVideo {subfolder}", "decoder.weights", config.weights, config.revision, subfolder)

    @staticmethod
    def pretrained_parts(config: DecoderConfig) -> dict[str, Part]:
        location_of = partial(HunyuanDecoder.location_of, config)
        return {
            "transformer": Part(location_of("transformer"), DIFFUSERS_FILES, {"transformer.": ("",)}),
            "vae": Part(location_of("vae"), DIFFUSERS_FILES, {"vae.": ("",), "vae.vidtok.": ("",)}),
            "text_encoder": Part(
                location_of("text_encoder_2"),
                TRANSFORMERS_FILES,
                {f"text_encoder.{nested}": ("text_model.", "") for nested in ("", "text_model.")},
            ),
        }

    @classmethod
    def empty_vae(cls, config: DecoderConfig, read_config: ReadConfig) -> HunyuanAutoencoder:
        location = cls.location_of(config, "vae")
        if config.vae is not None:
            return diffusers_part(location, (VidTokAutoencoder,), read_config)
        return diffusers_part(location, AUTOENCODERS, read_config)

    @classmethod
    def empty_text_encoder(cls, config: DecoderConfig, read_config: ReadConfig) -> CLIPTextModel:
        location = cls.location_of(config, "text_encoder_2")
        return transformers_part(location, CLIPTextConfig, CLIPTextModel, read_config)

    @classmethod
    def empty(cls, config: DecoderConfig, states_dim: int, read_config: ReadConfig) -> "HunyuanDecoder":
        def part(subfolder: str) -> Any:
            return diffusers_part(cls.location_of(config, subfolder), (DIFFUSERS_PARTS[subfolder],), read_config)

        with torch.device("meta"):
            transformer, vae = part("transformer"), cls.empty_vae(config, read_config)
            text_encoder = cls.empty_text_encoder(config, read_config)
        axes, head = transformer.config["rope_axes_dim"], transformer.config["attention_head_dim"]
        require(
            len(axes) == 3 and sum(axes) == head,
            f"decoder.weights: the transformer's rope_axes_dim should be three that add up to {head}, not {list(axes)}",
        )
        require_latents(transformer, vae)
        require_tiling(config, vae)
        wanted = transformer.config["text_embed_dim"]
        require(
            wanted == states_dim,
            f"mllm.weights has hidden size {states_dim}, but the decoder in decoder.weights reads rows of {wanted}: "
            "choose a pair that fits",
        )
        return cls(config, transformer, vae, text_encoder, part("scheduler"))

    @staticmethod
    def caption_tokenizer(tokenizer: PreTrainedTokenizerBase) -> CaptionTokenizer:
        return partial(clip_ids, tokenizer)

    @staticmethod
    def caption_length(tokens: int) -> int:
        return CLIP_TEXT_LENGTH

    @staticmethod
    @torch.no_grad()
    def encode_captions(text_encoder: nn.Module, ids: list[list[int]], device: torch.device) -> list[Tensor]:
        """Computes CLIP's pooled text vector (d_pooled,) of each caption."""
        return list(text_encoder(to_device(torch.tensor(ids), device)).pooler_output)

    def condition(self, rows: list[GenerationRow], texts: Sequence[Tensor]) -> Conditioning:
        """Takes all states of each clip: prompt, then visual tokens."""
        own = [torch.cat(row) for row in rows]
        return Conditioning(pad_sequence(own, batch_first=True), [len(row) for row in own], torch.stack(list(texts)))

    def normalise(self, latents: Tensor) -> Tensor:
        return latents * self.scaling_factor

    def share_rows(self, sequence: SequenceGroup) -> None:
        """Splits the rows of video and of text in all blocks, and the pieces of HunyuanVideo's own autoencoder.

        Every rank runs the whole text refiner. Its rows are padded to as many on each rank, since diffusers'
        single-stream blocks need one. The attention does not read padding.
        """

        tokens = gather_output(self.transformer, self.transformer.proj_out, sequence)

        def own_text(rows: Tensor) -> Tensor:
            padded = pad(rows, (0, 0, 0, -rows.shape[1] % sequence.size))
            return sequence.own(padded, 1) if tokens() >= sequence.size else rows

        self.attention.sequence = sequence
        change_output(self.transformer.x_embedder, lambda video: own_tokens(sequence, video, 1))
        change_output(self.transformer.context_embedder, own_text)
        if isinstance(self.vae, AutoencoderKLHunyuanVideo):
            share_pieces(self.vae, sequence)

    def velocity(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        dtype = self.transformer.dtype
        return self.transformer(
            hidden_states=noisy.to(dtype),
            timestep=sigma.flatten() * TIMESTEP_SCALE,
            encoder_hidden_states=conditioning.rows.to(dtype),
            encoder_attention_mask=conditioning.mask.to(dtype),
            pooled_projections=conditioning.pooled.to(dtype),
            guidance=torch.full_like(sigma.flatten(), self.config.guidance * TIMESTEP_SCALE, dtype=dtype),
            return_dict=False,
        )[0]

    @torch.no_grad()
    def denoise(
        self,
        conditioning: Conditioning,
        num_frames: int,
        steps: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        empty: Conditioning | None = None,
    ) -> Tensor:
        # diffusers takes other autoencoders, and None for parts that do not run. Its annotations do not say so.
        parts: dict[str, Any] = dict(
            vae=self.vae, text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None
        )
        pipeline = HunyuanVideoPipeline(transformer=self.transformer, scheduler=self.scheduler, **parts)
        pipeline.set_progress_bar_config(disable=True)
        guided: dict[str, Any] = {} if empty is None else dict(
            true_cfg_scale=self.config.true_guidance, negative_prompt_embeds=empty.rows,
            negative_prompt_attention_mask=empty.mask, negative_pooled_prompt_embeds=empty.pooled,
        )  # fmt: skip
        return pipeline(
            prompt_embeds=conditioning.rows,
            prompt_attention_mask=conditioning.mask,
            pooled_prompt_embeds=conditioning.pooled,
            height=self.config.height,
            width=self.config.width,
            num_frames=num_frames,
            num_inference_steps=steps,
            guidance_scale=self.config.guidance,
            generator=generator,
            output_type="pt",
            **guided,
        ).frames


def clip_ids(tokenizer: PreTrainedTokenizerBase, caption: str) -> list[int]:
    """Tokenises a caption for CLIP, padded to 77 ids. Control words in the caption stay text."""
    length = {"padding": "max_length", "truncation": True, "max_length": CLIP_TEXT_LENGTH}
    return tokenizer(caption, split_special_tokens=True, **length).input_ids


def latent_config(vae: HunyuanAutoencoder) -> LatentConfig:
    """Returns the properties of an autoencoder's latents."""
    if isinstance(vae, VidTokAutoencoder):
        return vae.config
    return LatentConfig(**{field.name: vae.config[field.name] for field in fields(LatentConfig)})


def require_latents(transformer: HunyuanVideoTransformer3DModel, vae: HunyuanAutoencoder) -> None:
    """Raises :class:`ConfigError` unless the latents suit the transformer and videos have 4k + 1 frames."""
    latents = latent_config(vae)
    found, wanted = latents.latent_channels, transformer.config["in_channels"]
    require(found == wanted, f"the decoder's transformer reads latents of {wanted} channels, its vae gives {found}")
    ratio = latents.temporal_compression_ratio
    require(
        ratio == FRAMES_PER_LATENT,
        f"the decoder's videos have 4k + 1 frames, but its vae has {ratio} frames to a latent frame",
    )
