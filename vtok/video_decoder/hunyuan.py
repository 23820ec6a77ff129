"""HunyuanVideo as the video decoder: its diffusion transformer and autoencoder, from diffusers.

It is conditioned on the language model's hidden states, in place of the text encoder's it was trained with: prompt
rows, then the rows whose input is a visual token. Everything else (template, pooled CLIP text, guidance, sampling) is
as in diffusers' ``HunyuanVideoPipeline``. Nothing in it is trained.
"""

from dataclasses import dataclass
from functools import partial

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerBase

from vtok.config import DecoderConfig, require
from vtok.devices import to_device
from vtok.video_decoder.base import (
    FRAMES_PER_LATENT,
    TIMESTEP_SCALE,
    CaptionTokenizer,
    GenerationRow,
    VideoDecoder,
    diffusers_part,
    transformers_config,
)
from vtok.video_decoder.hunyuan_mask import UnmaskedAttention
from vtok.video_decoder.patch_autoencoder import PatchAutoencoder
from vtok.video_decoder.tiling import require_tiling
from vtok.vidtok.latent_space import VidTokAutoencoder
from vtok.weights import DIFFUSERS_FILES, TRANSFORMERS_FILES, Location, Part, ReadConfig

CLIP_TEXT_LENGTH = 77

# Subfolders of HunyuanVideo's repository, with the classes that diffusers writes into their configurations.
DIFFUSERS_PARTS = {
    "transformer": HunyuanVideoTransformer3DModel,
    "vae": AutoencoderKLHunyuanVideo,
    "scheduler": FlowMatchEulerDiscreteScheduler,
}

# What may lie in the folder of HunyuanVideo's autoencoder; its configuration names the class.
AUTOENCODERS = (AutoencoderKLHunyuanVideo, PatchAutoencoder)


@dataclass
class Conditioning:
    """What the diffusion transformer is told about B videos.

    Attributes:
        rows: (B, R, d) hidden states, each clip's own rows first.
        counts: each clip's own rows, at most R.
        pooled: (B, d_pooled), CLIP's pooled text vector of the prompt.
    """

    rows: Tensor
    counts: list[int]
    pooled: Tensor

    @property
    def mask(self) -> Tensor:
        """(B, R) on the CPU, where the attention reads it; a prefix of ones per clip, which Hunyuan relies on."""
        return torch.arange(self.rows.shape[1]) < torch.tensor(self.counts)[:, None]


class HunyuanDecoder(VideoDecoder):
    """HunyuanVideo, frozen."""

    stacks = ("transformer_blocks", "single_transformer_blocks")
    tokenizer = "tokenizer_2"

    def __init__(
        self,
        config: DecoderConfig,
        transformer: HunyuanVideoTransformer3DModel,
        vae: AutoencoderKLHunyuanVideo | PatchAutoencoder | VidTokAutoencoder,
        text_encoder: CLIPTextModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ):
        super().__init__(config, transformer, vae, text_encoder, scheduler, scheduler.config.shift)
        self.latent_channels = vae.config.latent_channels
        self.space_factor = vae.config.spatial_compression_ratio
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
    def empty_vae(cls, config: DecoderConfig, read_config: ReadConfig) -> nn.Module:
        kinds = AUTOENCODERS if config.vae is None else (VidTokAutoencoder,)
        return diffusers_part(cls.location_of(config, "vae"), kinds, read_config)

    @classmethod
    def empty(cls, config: DecoderConfig, states_dim: int, read_config: ReadConfig) -> "HunyuanDecoder":
        def part(subfolder: str):
            return diffusers_part(cls.location_of(config, subfolder), (DIFFUSERS_PARTS[subfolder],), read_config)

        text_config = transformers_config(cls.location_of(config, "text_encoder_2"), CLIPTextConfig, read_config)
        with torch.device("meta"):
            transformer, vae = part("transformer"), cls.empty_vae(config, read_config)
            text_encoder = CLIPTextModel(text_config)
        require_latents(transformer, vae)
        require_tiling(config, vae)
        wanted = transformer.config.text_embed_dim
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

    @torch.no_grad()
    def encode_text(self, ids: list[list[int]], device: torch.device) -> Tensor:
        """CLIP's pooled text vectors, (B, d_pooled)."""
        return self.text_encoder(to_device(torch.tensor(ids), device)).pooler_output

    def condition(self, rows: list[GenerationRow], text: Tensor) -> Conditioning:
        """All rows of each clip, prompt and visual tokens."""
        own = [torch.cat(row) for row in rows]
        return Conditioning(pad_sequence(own, batch_first=True), [len(row) for row in own], text)

    def normalise(self, latents: Tensor) -> Tensor:
        return latents * self.vae.config.scaling_factor

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
        pipeline = HunyuanVideoPipeline(
            text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
            transformer=self.transformer, vae=self.vae, scheduler=self.scheduler,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        away = {} if empty is None else dict(
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
            **away,
        ).frames


def clip_ids(tokenizer: PreTrainedTokenizerBase, caption: str) -> list[int]:
    """CLIP's token ids, padded to 77."""
    return tokenizer(caption, padding="max_length", truncation=True, max_length=CLIP_TEXT_LENGTH).input_ids


def require_latents(transformer: HunyuanVideoTransformer3DModel, vae: nn.Module) -> None:
    """Raises ConfigError: the transformer cannot read the autoencoder's latents, or they are not of 4k + 1 frames."""
    found, wanted = vae.config.latent_channels, transformer.config.in_channels
    require(found == wanted, f"the decoder's transformer reads latents of {wanted} channels, its vae gives {found}")
    ratio = vae.config.temporal_compression_ratio
    require(
        ratio == FRAMES_PER_LATENT,
        f"the decoder's videos have 4k + 1 frames, but its vae has {ratio} frames to a latent frame",
    )
