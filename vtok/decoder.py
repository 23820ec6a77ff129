"""The frozen video decoder: HunyuanVideo's diffusion transformer and autoencoder, from diffusers.

It is conditioned on the language model's hidden states, in place of the text encoder's it was trained with: prompt
rows, then the rows whose input is a visual token. Everything else (template, pooled CLIP text, guidance, sampling) is
as in diffusers' ``HunyuanVideoPipeline``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from vtok.config import ConfigError, DecoderConfig, require
from vtok.flow_matching import interpolate, shifted_logit_normal, squared_error
from vtok.materialise import materialise, whole
from vtok.optional_mask import OptionalMask
from vtok.patch_autoencoder import PatchAutoencoder
from vtok.vidtok.latent_space import VidTokAutoencoder
from vtok.weights import DIFFUSERS_FILES, TRANSFORMERS_FILES, Location, Part, ReadConfig

# Diffusers' pipeline multiplies guidance and sigma by this before they are embedded.
TIMESTEP_SCALE = 1000.0


class Posterior(NamedTuple):
    """The autoencoder's Gaussian over B videos' latents, (B, C, k + 1, H / 8, W / 8) each, not yet scaled."""

    mean: Tensor
    std: Tensor


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
        """(B, R), a prefix of ones per clip; Hunyuan's attention relies on it being one."""
        counts = torch.tensor(self.counts, device=self.rows.device)
        return torch.arange(self.rows.shape[1], device=self.rows.device) < counts[:, None]

    @property
    def is_full(self) -> bool:
        """Whether no clip is padded, as one alone never is."""
        return min(self.counts) == self.rows.shape[1]


@torch.no_grad()
def encode_video(vae: AutoencoderKLHunyuanVideo | VidTokAutoencoder, video: Tensor) -> Posterior:
    """Encode a (B, F, 3, H, W) ``uint8`` video with F = 4k + 1.

    Raises:
        ConfigError: F is not 4k + 1 (the autoencoder would silently drop frames).
    """
    if (video.shape[1] - 1) % vae.config.temporal_compression_ratio:
        raise ConfigError(f"the decoder needs 4k + 1 frames, got {video.shape[1]}")
    pixels = video.to(vae.dtype).transpose(1, 2) / 127.5 - 1
    posterior = vae.encode(pixels).latent_dist
    return Posterior(posterior.mean, posterior.std)


class HunyuanDecoder(nn.Module):
    """Frozen; gradients pass through the transformer to the conditioning."""

    def __init__(
        self,
        config: DecoderConfig,
        transformer: HunyuanVideoTransformer3DModel,
        vae: AutoencoderKLHunyuanVideo | VidTokAutoencoder,
        text_encoder: CLIPTextModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ):
        super().__init__()
        self.config = config
        self.transformer = transformer
        self.vae = vae
        self.text_encoder = text_encoder
        self.scheduler = scheduler
        self.requires_grad_(False).eval()
        self.attention = OptionalMask(transformer)
        if config.gradient_checkpointing:
            transformer.enable_gradient_checkpointing(self.attention.checkpoint)

    @property
    def latents_per_frame(self) -> int:
        """Frames per latent frame: videos have 4k + 1 frames, latents k + 1."""
        return self.vae.config.temporal_compression_ratio

    @torch.no_grad()
    def pool_text(self, clip_ids: Tensor) -> Tensor:
        """CLIP's pooled text vector, (B, 77) token ids -> (B, d_pooled)."""
        return self.text_encoder(clip_ids).pooler_output

    def encode(self, video: Tensor) -> Posterior:
        """The posterior of a (B, F, 3, H, W) ``uint8`` video."""
        return encode_video(self.vae, video)

    def draw(self, shape: torch.Size, seeds: list[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Each clip's own draws, made on the CPU so that they are the same on every device.

        Args:
            shape: (C, k + 1, h, w) of one clip's latents.

        Returns:
            sigma (B, 1, 1, 1, 1), posterior noise and diffusion noise (B, C, k + 1, h, w), all fp32.
        """
        normals, posterior, noise = [], [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            normals.append(torch.randn(1, 1, 1, 1, generator=generator))
            posterior.append(torch.randn(shape, generator=generator))
            noise.append(torch.randn(shape, generator=generator))
        sigma = shifted_logit_normal(torch.stack(normals), self.scheduler.config.shift)
        return tuple(x.to(device) for x in (sigma, torch.stack(posterior), torch.stack(noise)))

    def loss(
        self, posterior: Posterior, video_counts: list[int], conditioning: Conditioning, seeds: list[int]
    ) -> Tensor:
        """``L_dec`` (eq. 11) of each clip, averaged over its own latent elements.

        Args:
            posterior: of the videos, from :meth:`encode`.
            video_counts: each clip's real frames; latents of the padding behind them carry no loss.
            conditioning: gradients reach ``conditioning.rows``.
            seeds: each clip's seed for sigma and the two noises.

        Returns:
            (B,) in fp32.
        """
        mean, std = (x.float() for x in posterior)
        sigma, posterior_noise, noise = self.draw(mean.shape[1:], seeds, mean.device)
        clean = (mean + std * posterior_noise) * self.vae.config.scaling_factor
        velocity = self.velocity(interpolate(clean, noise, sigma), sigma, conditioning).float()
        error = squared_error(velocity, clean, noise, sigma, self.config.objective).mean(dim=(1, 3, 4))
        counts = torch.tensor(video_counts, device=mean.device).sub(1) // self.latents_per_frame + 1
        real = torch.arange(clean.shape[2], device=mean.device) < counts[:, None]
        return (error * real).sum(1) / counts

    def velocity(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """The transformer's prediction at ``noisy`` (B, C, k + 1, h, w), shaped like it."""
        dtype = self.transformer.dtype
        with self.attention.masked(not conditioning.is_full):
            return self.transformer(
                hidden_states=noisy.to(dtype),
                timestep=sigma.flatten() * TIMESTEP_SCALE,
                encoder_hidden_states=conditioning.rows.to(dtype),
                encoder_attention_mask=conditioning.mask.to(dtype),
                pooled_projections=conditioning.pooled.to(dtype),
                guidance=torch.full_like(sigma.flatten(), self.config.guidance * TIMESTEP_SCALE, dtype=dtype),
                return_dict=False,
            )[0]

    def sample(
        self,
        conditioning: Conditioning,
        num_frames: int,
        steps: int,
        generator: torch.Generator | None = None,
        empty: Conditioning | None = None,
    ) -> Tensor:
        """Videos from conditioning: (B, num_frames, 3, height, width) ``uint8``; arguments as :meth:`denoise`."""
        return (self.denoise(conditioning, num_frames, steps, generator, empty) * 255).round().to(torch.uint8)

    @torch.no_grad()
    def denoise(
        self,
        conditioning: Conditioning,
        num_frames: int,
        steps: int,
        generator: torch.Generator | None = None,
        empty: Conditioning | None = None,
    ) -> Tensor:
        """Videos from conditioning, by diffusers' pipeline.

        Args:
            num_frames: 4k + 1.
            steps: denoising steps.
            generator: on the CPU, so that a seed gives the same noise on every device.
            empty: conditioning that ``true_guidance`` leads away from; without it there is none.

        Returns:
            (B, num_frames, 3, height, width) in 0..1.
        """
        pipeline = HunyuanVideoPipeline(
            text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
            transformer=self.transformer, vae=self.vae, scheduler=self.scheduler,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        away = {} if empty is None else dict(
            true_cfg_scale=self.config.true_guidance, negative_prompt_embeds=empty.rows,
            negative_prompt_attention_mask=empty.mask, negative_pooled_prompt_embeds=empty.pooled,
        )  # fmt: skip
        padded = not (conditioning.is_full and (empty is None or empty.is_full))
        with self.attention.masked(padded):
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


# Subfolders of HunyuanVideo's repository, with the classes that diffusers writes into their configurations.
DIFFUSERS_PARTS = {
    "transformer": HunyuanVideoTransformer3DModel,
    "vae": AutoencoderKLHunyuanVideo,
    "scheduler": FlowMatchEulerDiscreteScheduler,
}


# What may lie in the folder of HunyuanVideo's autoencoder; its configuration names the class.
AUTOENCODERS = (AutoencoderKLHunyuanVideo, PatchAutoencoder)


def location_of(config: DecoderConfig, subfolder: str) -> Location:
    if subfolder == "vae" and config.vae is not None:
        return Location("VidTok", "decoder.vae", config.vae)
    return Location(f"HunyuanVideo {subfolder}", "decoder.weights", config.weights, config.revision, subfolder)


def decoder_parts(config: DecoderConfig) -> dict[str, Part]:
    """The decoder's pretrained parts, by the name of their module in it."""
    return {
        "transformer": Part(location_of(config, "transformer"), DIFFUSERS_FILES, {"transformer.": ("",)}),
        "vae": Part(location_of(config, "vae"), DIFFUSERS_FILES, {"vae.": ("",), "vae.vidtok.": ("",)}),
        "text_encoder": Part(
            location_of(config, "text_encoder_2"),
            TRANSFORMERS_FILES,
            {f"text_encoder.{nested}": ("text_model.", "") for nested in ("", "text_model.")},
        ),
    }


def diffusers_part(config: DecoderConfig, subfolder: str, read_config: ReadConfig):
    """A part of the decoder that diffusers defines, or the VidTok in the place of one, without weights.

    Raises:
        ConfigError: its configuration is missing, or of another class.
    """
    kinds, location = (DIFFUSERS_PARTS[subfolder],), location_of(config, subfolder)
    if subfolder == "vae":
        kinds = AUTOENCODERS if config.vae is None else (VidTokAutoencoder,)
    stored = read_config(location, kinds[0].config_name)
    found = stored.get("_class_name")
    if (kind := {kind.__name__: kind for kind in kinds}.get(found)) is None:
        raise location.error(f"its {kinds[0].config_name} is of a {found!r}, not a {kinds[0].__name__}")
    return kind.from_config(stored)


def empty_decoder(config: DecoderConfig, read_config: ReadConfig = Location.read_json) -> HunyuanDecoder:
    """The decoder with its modules on the meta device.

    Raises:
        ConfigError: a configuration is missing, or of another class.
    """
    location = location_of(config, "text_encoder_2")
    text_config = read_config(location, "config.json")
    if (kind := text_config.get("model_type")) != "clip_text_model":
        raise location.error(f"its config.json is of a {kind!r}, not a 'clip_text_model'")
    with torch.device("meta"):
        transformer = diffusers_part(config, "transformer", read_config)
        vae = diffusers_part(config, "vae", read_config)
        text_encoder = CLIPTextModel(CLIPTextConfig.from_dict(text_config))
    require_latents(transformer, vae)
    return HunyuanDecoder(config, transformer, vae, text_encoder, diffusers_part(config, "scheduler", read_config))


def require_latents(transformer: HunyuanVideoTransformer3DModel, vae: nn.Module) -> None:
    """Raises ConfigError: the transformer cannot read the autoencoder's latents, or they are not of 4k + 1 frames."""
    found, wanted = vae.config.latent_channels, transformer.config.in_channels
    require(found == wanted, f"the decoder's transformer reads latents of {wanted} channels, its vae gives {found}")
    ratio = vae.config.temporal_compression_ratio
    require(ratio == 4, f"the decoder's videos have 4k + 1 frames, but its vae has {ratio} frames to a latent frame")


def build_vae(config: DecoderConfig) -> AutoencoderKLHunyuanVideo | VidTokAutoencoder:
    """The autoencoder alone, frozen, in fp32 on the CPU.

    Raises:
        ConfigError: it is missing, or does not fit.
    """
    with torch.device("meta"):
        vae = diffusers_part(config, "vae", Location.read_json)
    holder = nn.ModuleDict({"vae": vae.requires_grad_(False).eval()})
    return materialise(holder, [decoder_parts(config)["vae"]], whole())["vae"]
