"""The interface of a video decoder.

A decoder is a pretrained diffusion transformer with its autoencoder and its text encoder, all frozen. It combines two
sources into the transformer's conditioning:

    token ids of captions --encode_text()--> texts                      (its own text encoder, no gradient)
    states of the generation rows, texts --condition()--> conditioning  (gradients reach the states)

    encode(video) -> Posterior;  loss(posterior, ..., conditioning);  sample(conditioning, ...) -> video

Framework, engine, planning and precomputing use only this interface. A text is one tensor, of the decoder's own shape.
The type of ``conditioning`` is the decoder's own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from vtok.config import ConfigError, DecoderConfig, VaeTiling, require
from vtok.devices import indices_on_device, to_device
from vtok.flow_matching import interpolate, shifted_logit_normal, squared_error
from vtok.lora import no_loss
from vtok.sequence import SequenceGroup
from vtok.video_decoder.autoencoder import Autoencoder
from vtok.video_decoder.shift import shift_key, with_shift
from vtok.video_decoder.tiling import set_tiling
from vtok.weights import Location, Part, ReadConfig

# Frames per latent frame. Videos have 4k + 1 frames, latents k + 1.
FRAMES_PER_LATENT = 4

# The transformers' timestep is the noise level times this.
TIMESTEP_SCALE = 1000.0

# Turns a caption into token ids of a decoder's own text encoder.
CaptionTokenizer = Callable[[str], list[int]]


class Posterior(NamedTuple):
    """The autoencoder's Gaussian over the latents of B videos: (B, C, k + 1, h, w) each, not scaled."""

    mean: Tensor
    std: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Posterior":
        """Returns the posterior on ``device``."""
        return Posterior(*(x.to(device, non_blocking=non_blocking) for x in self))

    def first(self, frames: int) -> "Posterior":
        """Returns the posterior of the first latent frames."""
        return Posterior(*(x[:, :, :frames] for x in self))


class GenerationRow(NamedTuple):
    """The language model's states at one clip's generation row.

    Attributes:
        prompt: (p, d), at the prompt after the template's crop.
        visual: (v, d), at the visual tokens.
    """

    prompt: Tensor
    visual: Tensor


@torch.no_grad()
def encode_video(vae: Autoencoder, video: Tensor, tiling: VaeTiling = "auto") -> Posterior:
    """Encodes ``uint8`` videos (B, F, 3, H, W) with F = 4k + 1.

    Args:
        vae: The autoencoder.
        video: The videos.
        tiling: ``decoder.vae_tiling``.

    Raises:
        ConfigError: F is not 4k + 1. The autoencoder would silently drop frames.
    """
    if (video.shape[1] - 1) % FRAMES_PER_LATENT:
        raise ConfigError(f"the decoder needs 4k + 1 frames, got {video.shape[1]}")
    height, width = video.shape[-2:]
    set_tiling(vae, tiling, height, width)
    pixels = video.to(vae.dtype).transpose(1, 2) / 127.5 - 1
    posterior = vae.encode(pixels).latent_dist
    return Posterior(posterior.mean, posterior.std)


@torch.no_grad()
def decode_video(vae: Autoencoder, latents: Tensor) -> Tensor:
    """Decodes latents (B, C, k + 1, h, w), as :func:`encode_video` gives them, to ``uint8`` videos (B, F, 3, H, W)."""
    pixels = vae.decode(latents.to(vae.dtype), return_dict=False)[0].transpose(1, 2).float()
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


class VideoDecoder(nn.Module):
    """A video decoder. Its pretrained parts are frozen; gradients pass through the transformer to the conditioning.

    Args:
        config: The settings.
        transformer: The diffusion transformer.
        vae: The autoencoder.
        text_encoder: The decoder's own text encoder.
        scheduler: diffusers' scheduler, for sampling.

    Attributes:
        shift: Shift of the noise levels, in training and in sampling.
        published_negative_prompt: What classifier-free guidance leads away from, unless the settings say it.
        stacks: Names of the transformer's lists of equal blocks.
        tokenizer: Subfolder of the text encoder's tokenizer.
        latent_channels: Channels of a latent.
        space_factor: Height and width of a latent pixel, in pixels.
    """

    transformer: nn.Module
    vae: Autoencoder
    text_encoder: nn.Module
    stacks: tuple[str, ...]
    tokenizer: str
    latent_channels: int
    space_factor: int
    latents_per_frame = FRAMES_PER_LATENT
    published_negative_prompt = ""

    def __init__(
        self, config: DecoderConfig, transformer: nn.Module, vae: Autoencoder, text_encoder: nn.Module, scheduler: Any
    ):
        super().__init__()
        self.config = config
        self.transformer = transformer
        self.vae = vae
        self.text_encoder = text_encoder
        self.scheduler = scheduler if config.shift is None else with_shift(scheduler, config.shift)
        self.shift: float = self.scheduler.config[shift_key(scheduler)]
        require(self.shift > 0, f"the shift of decoder.weights' scheduler is {self.shift}, and must be positive")
        self.requires_grad_(False).eval()

    # ---------------------------------------------------------------- each decoder's own

    @staticmethod
    def location_of(config: DecoderConfig, subfolder: str) -> Location:
        """Returns where a part lies."""
        raise NotImplementedError

    @staticmethod
    def pretrained_parts(config: DecoderConfig) -> dict[str, Part]:
        """Returns the parts ``transformer``, ``vae`` and ``text_encoder``."""
        raise NotImplementedError

    @staticmethod
    def experts(config: DecoderConfig) -> dict[str, Part]:
        """Returns all transformers, by name, if a decoder has several that runs load in turn."""
        return {}

    @classmethod
    def empty_vae(cls, config: DecoderConfig, read_config: ReadConfig) -> Autoencoder:
        """Builds the autoencoder without weights; raises ConfigError if its configuration is missing or another's."""
        raise NotImplementedError

    @classmethod
    def empty_text_encoder(cls, config: DecoderConfig, read_config: ReadConfig) -> nn.Module:
        """Builds the text encoder without weights; raises ConfigError if its configuration is missing or another's."""
        raise NotImplementedError

    @classmethod
    def empty(cls, config: DecoderConfig, states_dim: int, read_config: ReadConfig) -> "VideoDecoder":
        """Builds the decoder with its pretrained modules on the meta device.

        Args:
            config: The settings.
            states_dim: Width of the language model's states.
            read_config: Reads an architecture that is stored beside the weights.

        Raises:
            ConfigError: A configuration is missing or of another class, or the parts do not fit together.
        """
        raise NotImplementedError

    @staticmethod
    def caption_tokenizer(tokenizer: PreTrainedTokenizerBase) -> CaptionTokenizer:
        """Returns the function that turns a caption into token ids for :meth:`encode_text`."""
        raise NotImplementedError

    @staticmethod
    def caption_length(tokens: int) -> int:
        """Returns the number of token ids of a caption of ``tokens`` plain tokens, for plans without a tokenizer."""
        raise NotImplementedError

    @staticmethod
    def encode_captions(text_encoder: nn.Module, ids: list[list[int]], device: torch.device) -> list[Tensor]:
        """Encodes B captions with the decoder's own text encoder, without gradient. Returns a tensor for each."""
        raise NotImplementedError

    def condition(self, rows: list[GenerationRow], texts: Sequence[Tensor]) -> Any:
        """Builds the transformer's conditioning for B clips. Gradients reach ``rows``.

        Args:
            rows: The language model's states.
            texts: Each clip's encoded caption, from :meth:`encode_text`.
        """
        raise NotImplementedError

    def normalise(self, latents: Tensor) -> Tensor:
        """Scales the autoencoder's latents (B, C, k + 1, h, w) for the transformer."""
        raise NotImplementedError

    def velocity(self, noisy: Tensor, sigma: Tensor, conditioning: Any) -> Tensor:
        """Predicts the velocity at ``noisy`` (B, C, k + 1, h, w), in its shape."""
        raise NotImplementedError

    def denoise(
        self,
        conditioning: Any,
        num_frames: int,
        steps: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        empty: Any = None,
    ) -> Tensor:
        """Samples videos with diffusers' own pipeline.

        Args:
            conditioning: From :meth:`condition`.
            num_frames: 4k + 1.
            steps: Denoising steps.
            generator: One for all videos or one per video, on the CPU, so a seed gives the same noise on every device.
            empty: Conditioning of empty prompts for classifier-free guidance. No guidance if omitted.

        Returns:
            (B, num_frames, 3, height, width) in 0..1.
        """
        raise NotImplementedError

    def received_in_encoding(self, ranks: int, num_frames: int, height: int, width: int) -> int:
        """Returns the bytes that each of the ranks that share a video receives while they encode it, latents apart."""
        return 0

    def share_rows(self, sequence: SequenceGroup) -> None:
        """Makes the transformer compute only this rank's rows, and the autoencoder its pieces (see :meth:`share`)."""
        raise NotImplementedError

    # ---------------------------------------------------------------- the same for all

    def share(self, sequence: SequenceGroup) -> None:
        """Splits the work on each sample among the ranks of a group, from now on.

        All of them must then run the parts together, on the same inputs. Each gets the whole output. Call it before
        ZeRO adds its hooks, which gather weights around ours.

        Raises:
            ConfigError: The ranks do not divide the attention heads.
        """
        self.require_heads(sequence.size)
        self.share_rows(sequence)

    def require_heads(self, ranks: int) -> None:
        """Raises :class:`ConfigError` unless each of so many ranks can take as many of the attention heads."""
        possible = self.possible_sharing
        require(
            ranks in possible,
            f"train.sequence_parallel {ranks} does not divide the {max(possible)} attention heads of the decoder's "
            f"transformer: choose of {', '.join(map(str, possible))}",
        )

    def block_stacks(self) -> list[nn.ModuleList]:
        """Returns the transformer's lists of equal blocks, in the order in which they run."""
        return [getattr(self.transformer, name) for name in self.stacks]

    @property
    def possible_sharing(self) -> list[int]:
        """The numbers of ranks that can share a sample: the divisors of the number of attention heads."""
        config: Any = self.transformer.config
        heads = config["num_attention_heads"]
        return [n for n in range(1, heads + 1) if heads % n == 0]

    @property
    def negative_prompt(self) -> str:
        """What classifier-free guidance leads away from."""
        own = self.config.negative_prompt
        return self.published_negative_prompt if own is None else own

    def parts(self) -> dict[str, nn.Module]:
        """Returns the frozen parts, by their names in plans and logs."""
        return {"diffusion_transformer": self.transformer, "autoencoder": self.vae, "text_encoder": self.text_encoder}

    def added(self) -> dict[str, nn.Module]:
        """Returns the modules that the decoder adds and trains, by name. None by default."""
        return {}

    @property
    def token_side(self) -> int:
        """Height and width of a token of the transformer, in pixels. Videos are multiples of it."""
        config: Any = self.transformer.config
        patch = config["patch_size"]
        return self.space_factor * (patch if isinstance(patch, int) else patch[-1])

    def encode_text(self, ids: list[list[int]], device: torch.device) -> list[Tensor]:
        """Encodes B captions. Returns a tensor for each (see :meth:`encode_captions`)."""
        return self.encode_captions(self.text_encoder, ids, device)

    def encode(self, video: Tensor) -> Posterior:
        """Encodes ``uint8`` videos (B, F, 3, H, W)."""
        return encode_video(self.vae, video, self.config.vae_tiling)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Returns the shape (C, k + 1, h, w) of the latents of a video of 4k + 1 frames."""
        frames = (num_frames - 1) // FRAMES_PER_LATENT + 1
        return self.latent_channels, frames, height // self.space_factor, width // self.space_factor

    def noise_level(self, normal: Tensor) -> Tensor:
        """Turns standard normal draws into noise levels."""
        return shifted_logit_normal(normal, self.shift)

    def draw(self, shape: torch.Size, seeds: list[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Draws each clip's noise from its own seed, on the CPU, so it is the same on every device.

        Args:
            shape: Shape (C, k + 1, h, w) of one clip's latents.
            seeds: The seeds of B clips.
            device: Where the draws go.

        Returns:
            Sigma (B, 1, 1, 1, 1), posterior noise and diffusion noise (B, C, k + 1, h, w), all fp32.
        """
        normals, posterior, noise = [], [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            normals.append(torch.randn(1, 1, 1, 1, generator=generator))
            posterior.append(torch.randn(shape, generator=generator))
            noise.append(torch.randn(shape, generator=generator))
        sigma = self.noise_level(torch.stack(normals))
        return (
            to_device(sigma, device),
            to_device(torch.stack(posterior), device),
            to_device(torch.stack(noise), device),
        )

    def loss(self, posterior: Posterior, video_counts: list[int], conditioning: Any, seeds: list[int]) -> Tensor:
        """Computes ``L_dec`` (eq. 11) of each clip, averaged over its own latent elements.

        Args:
            posterior: The videos, from :meth:`encode`.
            video_counts: Each clip's real frames. Latents of padding have no loss.
            conditioning: From :meth:`condition`. Gradients pass through it.
            seeds: Each clip's seed for sigma and the two noises.

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
        """Returns zero, for a step without ``L_dec``.

        Under ZeRO-3 a trained parameter that gets no gradient in a step would get the last step's again. So a decoder
        that trains modules gives them a gradient of zero here.
        """
        return no_loss(self.transformer, states)

    @torch.no_grad()
    def sample(
        self,
        conditioning: Any,
        num_frames: int,
        steps: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        empty: Any = None,
    ) -> Tensor:
        """Samples ``uint8`` videos (B, num_frames, 3, height, width). Arguments as in :meth:`denoise`."""
        set_tiling(self.vae, self.config.vae_tiling, self.config.height, self.config.width)
        return (self.denoise(conditioning, num_frames, steps, generator, empty) * 255).round().to(torch.uint8)
