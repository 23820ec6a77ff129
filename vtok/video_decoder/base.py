"""What a video decoder tells the rest of the model.

A decoder is a pretrained diffusion transformer with its autoencoder and its text encoder, all frozen. What it is told
of a clip comes from two sides, and only it knows how they go together:

    caption's token ids --encode_text()--> text                          (its own text encoder, no gradient)
    states of the generation row, text --condition()--> conditioning     (gradients pass to the states)

    encode(video) -> Posterior;  loss(posterior, ..., conditioning);  sample(conditioning, ...) -> video

Framework, engine, planning and precomputing follow from these and know no decoder.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from vtok.config import ConfigError, DecoderConfig, VaeTiling
from vtok.devices import indices_on_device, to_device
from vtok.flow_matching import interpolate, shifted_logit_normal, squared_error
from vtok.video_decoder.tiling import set_tiling
from vtok.weights import Location, Part, ReadConfig

# Frames per latent frame: videos have 4k + 1 frames, latents k + 1.
FRAMES_PER_LATENT = 4

# Timesteps of the diffusion transformers are noise levels times this.
TIMESTEP_SCALE = 1000.0

# How a decoder's caption becomes the token ids of its own text encoder.
CaptionTokenizer = Callable[[str], list[int]]


class Posterior(NamedTuple):
    """The autoencoder's Gaussian over B videos' latents, (B, C, k + 1, h, w) each, not yet scaled."""

    mean: Tensor
    std: Tensor


class GenerationRow(NamedTuple):
    """The language model's states of one clip's generation row.

    Attributes:
        prompt: (p, d), the caption's rows, from the template's crop on.
        visual: (v, d), the rows whose inputs are the visual tokens.
    """

    prompt: Tensor
    visual: Tensor


@torch.no_grad()
def encode_video(vae: nn.Module, video: Tensor, tiling: VaeTiling = "auto") -> Posterior:
    """Encode a (B, F, 3, H, W) ``uint8`` video with F = 4k + 1.

    Args:
        tiling: ``decoder.vae_tiling``.

    Raises:
        ConfigError: F is not 4k + 1 (the autoencoder would silently drop frames).
    """
    if (video.shape[1] - 1) % FRAMES_PER_LATENT:
        raise ConfigError(f"the decoder needs 4k + 1 frames, got {video.shape[1]}")
    set_tiling(vae, tiling, *video.shape[-2:])
    pixels = video.to(vae.dtype).transpose(1, 2) / 127.5 - 1
    posterior = vae.encode(pixels).latent_dist
    return Posterior(posterior.mean, posterior.std)


class VideoDecoder(nn.Module):
    """Frozen but for what a decoder adds itself; gradients pass through the transformer to the conditioning.

    Args:
        shift: of the noise levels, in training as in the scheduler's sampling.

    Attributes:
        stacks: names of the transformer's lists of equal blocks.
        tokenizer: subfolder of the text encoder's tokenizer.
        latent_channels, space_factor: of the autoencoder; a latent pixel is so many pixels high and wide.
    """

    stacks: tuple[str, ...]
    tokenizer: str
    latent_channels: int
    space_factor: int
    latents_per_frame = FRAMES_PER_LATENT

    def __init__(
        self, config: DecoderConfig, transformer: nn.Module, vae: nn.Module, text_encoder: nn.Module, scheduler: Any,
        shift: float,
    ):  # fmt: skip
        super().__init__()
        self.config = config
        self.transformer = transformer
        self.vae = vae
        self.text_encoder = text_encoder
        self.scheduler = scheduler
        self.shift = shift
        self.requires_grad_(False).eval()

    # ---------------------------------------------------------------- what each decoder has its own way of

    @staticmethod
    def location_of(config: DecoderConfig, subfolder: str) -> Location:
        """Where a part of it lies."""
        raise NotImplementedError

    @staticmethod
    def pretrained_parts(config: DecoderConfig) -> dict[str, Part]:
        """``transformer``, ``vae`` and ``text_encoder``, by the name of their module in the decoder."""
        raise NotImplementedError

    @staticmethod
    def experts(config: DecoderConfig) -> dict[str, Part]:
        """By name, the transformers that a run may have in turn, where a decoder has several; the loaded one too."""
        return {}

    @classmethod
    def empty_vae(cls, config: DecoderConfig, read_config: ReadConfig) -> nn.Module:
        """The autoencoder without weights; raises ConfigError if its configuration is missing or of another class."""
        raise NotImplementedError

    @classmethod
    def empty(cls, config: DecoderConfig, states_dim: int, read_config: ReadConfig) -> "VideoDecoder":
        """The decoder with its pretrained modules on the meta device.

        Args:
            states_dim: width of the language model's states.

        Raises:
            ConfigError: a configuration is missing or of another class, or the parts do not fit one another.
        """
        raise NotImplementedError

    @staticmethod
    def caption_tokenizer(tokenizer: PreTrainedTokenizerBase) -> CaptionTokenizer:
        """A caption to the token ids that :meth:`encode_text` takes."""
        raise NotImplementedError

    @staticmethod
    def caption_length(tokens: int) -> int:
        """Token ids of a caption of so many tokens, special ones left out; for plans without a tokenizer."""
        raise NotImplementedError

    def encode_text(self, ids: list[list[int]], device: torch.device) -> Any:
        """What its own text encoder makes of B captions; no gradient."""
        raise NotImplementedError

    def condition(self, rows: list[GenerationRow], text: Any) -> Any:
        """What the transformer is told of B clips; gradients reach ``rows``."""
        raise NotImplementedError

    def normalise(self, latents: Tensor) -> Tensor:
        """Latents (B, C, k + 1, h, w) of the autoencoder as the transformer reads them."""
        raise NotImplementedError

    def velocity(self, noisy: Tensor, sigma: Tensor, conditioning: Any) -> Tensor:
        """The transformer's prediction at ``noisy`` (B, C, k + 1, h, w), shaped like it."""
        raise NotImplementedError

    def denoise(
        self,
        conditioning: Any,
        num_frames: int,
        steps: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        empty: Any = None,
    ) -> Tensor:
        """Videos from conditioning, by diffusers' own pipeline.

        Args:
            num_frames: 4k + 1.
            steps: denoising steps.
            generator: on the CPU, so that a seed gives the same noise on every device; one for all or one a video.
            empty: conditioning that ``true_guidance`` leads away from; without it there is none.

        Returns:
            (B, num_frames, 3, height, width) in 0..1.
        """
        raise NotImplementedError

    # ---------------------------------------------------------------- the same for all

    def parts(self) -> dict[str, nn.Module]:
        """The frozen parts, as plans and logs call them."""
        return {"diffusion_transformer": self.transformer, "autoencoder": self.vae, "text_encoder": self.text_encoder}

    def added(self) -> dict[str, nn.Module]:
        """What is trained of the decoder, by name; nothing unless a decoder says so."""
        return {}

    def encode(self, video: Tensor) -> Posterior:
        """The posterior of a (B, F, 3, H, W) ``uint8`` video."""
        return encode_video(self.vae, video, self.config.vae_tiling)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, k + 1, h, w) of the latents of a video of 4k + 1 frames."""
        frames = (num_frames - 1) // FRAMES_PER_LATENT + 1
        return self.latent_channels, frames, height // self.space_factor, width // self.space_factor

    def noise_level(self, normal: Tensor) -> Tensor:
        """Sigma from standard normal draws."""
        return shifted_logit_normal(normal, self.shift)

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
        sigma = self.noise_level(torch.stack(normals))
        return tuple(to_device(x, device) for x in (sigma, torch.stack(posterior), torch.stack(noise)))

    def loss(self, posterior: Posterior, video_counts: list[int], conditioning: Any, seeds: list[int]) -> Tensor:
        """``L_dec`` (eq. 11) of each clip, averaged over its own latent elements.

        Args:
            posterior: of the videos, from :meth:`encode`.
            video_counts: each clip's real frames; latents of the padding behind them carry no loss.
            conditioning: from :meth:`condition`, through which gradients pass.
            seeds: each clip's seed for sigma and the two noises.

        Returns:
            (B,) in fp32.
        """
        mean, std = (x.float() for x in posterior)
        sigma, posterior_noise, noise = self.draw(mean.shape[1:], seeds, mean.device)
        clean = self.normalise(mean + std * posterior_noise)
        velocity = self.velocity(interpolate(clean, noise, sigma), sigma, conditioning).float()
        error = squared_error(velocity, clean, noise, sigma, self.config.objective).mean(dim=(1, 3, 4))
        (counts,) = indices_on_device(mean.device, [(count - 1) // FRAMES_PER_LATENT + 1 for count in video_counts])
        real = torch.arange(clean.shape[2], device=mean.device) < counts[:, None]
        return (error * real).sum(1) / counts

    def no_loss(self, states: Tensor) -> Tensor:
        """Zero, in the place of ``L_dec`` where it is not part of a step.

        Under ZeRO-3 a trained parameter that takes no part in a step would get the last step's gradient again: what is
        trained of a decoder has to give itself one of zero here.
        """
        return states.new_zeros((), dtype=torch.float32)

    @torch.no_grad()
    def sample(
        self,
        conditioning: Any,
        num_frames: int,
        steps: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        empty: Any = None,
    ) -> Tensor:
        """Videos from conditioning: (B, num_frames, 3, height, width) ``uint8``; arguments as :meth:`denoise`."""
        set_tiling(self.vae, self.config.vae_tiling, self.config.height, self.config.width)
        return (self.denoise(conditioning, num_frames, steps, generator, empty) * 255).round().to(torch.uint8)


def diffusers_part(location: Location, kinds: tuple[type, ...], read_config: ReadConfig) -> Any:
    """A part that diffusers defines, or what may stand in the place of one, without weights.

    Args:
        kinds: what it may be an instance of; its configuration names the class.

    Raises:
        ConfigError: the configuration is missing, or of another class.
    """
    stored = read_config(location, kinds[0].config_name)
    found = stored.get("_class_name")
    if (kind := {kind.__name__: kind for kind in kinds}.get(found)) is None:
        raise location.error(f"its {kinds[0].config_name} is of a {found!r}, not a {kinds[0].__name__}")
    return kind.from_config(stored)


def transformers_config(location: Location, kind: type[PreTrainedConfig], read_config: ReadConfig) -> PreTrainedConfig:
    """The configuration of a part that transformers defines.

    Raises:
        ConfigError: it is missing, or of another kind of model.
    """
    stored = read_config(location, "config.json")
    if (found := stored.get("model_type")) != kind.model_type:
        raise location.error(f"its config.json is of a {found!r}, not a {kind.model_type!r}")
    return kind.from_dict(stored)
