"""Wan as the video decoder: its diffusion transformers, autoencoder and text encoder, from diffusers, all frozen.

The conditioning is in the space of Wan's own text encoder, which the transformer was trained with:

    [ UMT5's embeddings of the caption ; adapter(language model's states at the visual tokens) ; zeros up to 512 ]

Only the adapter, a two-layer MLP, trains here. The gradient of ``L_dec`` passes through it into the language model. Wan
has no mask over these rows, so zeros count as input: there are always 512 rows. Without visual tokens they equal those
of diffusers' ``WanPipeline``.

Wan2.2-T2V-A14B has two transformers of one architecture, called *experts*: one for noise levels from the boundary
(0.875) up, one for those below. One of them is in memory at a time. A training run uses one, ``decoder.expert``, and
draws only noise levels of its range. To learn both ranges, the adapter trains on with the other expert. Sampling reads
the other expert's weights into the same memory when it crosses the boundary.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models import AutoencoderKLWan, WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel

from vtok.config import DecoderConfig, require
from vtok.devices import to_device
from vtok.flow_matching import normal_of, shifted_logit_normal, truncated_normal
from vtok.fp8 import Read, reading
from vtok.sequence import SequenceGroup
from vtok.video_decoder.base import (
    TIMESTEP_SCALE,
    CaptionTokenizer,
    GenerationRow,
    VideoDecoder,
)
from vtok.video_decoder.stored import diffusers_part, transformers_part
from vtok.video_decoder.wan_fit import require_fit
from vtok.video_decoder.wan_pieces import received_bytes, share_wan_pieces
from vtok.video_decoder.wan_sequence import share_wan
from vtok.video_decoder.wan_text import NEGATIVE_PROMPT, TEXT_ROWS, umt5_ids
from vtok.weights import DIFFUSERS_FILES, TRANSFORMERS_FILES, Location, Part, ReadConfig, shapes_of

# The experts' subfolders. A model with one transformer has the first.
EXPERTS = {"high_noise": "transformer", "low_noise": "transformer_2"}

# Names the pipeline's class, the experts' boundary and ``expand_timesteps``.
PIPELINE_CONFIG = "model_index.json"

# Wan's own scheduler and diffusers' default.
SCHEDULERS = (UniPCMultistepScheduler, FlowMatchEulerDiscreteScheduler)


class WanDecoder(VideoDecoder):
    """Wan, frozen, and its adapter, which trains.

    Args:
        config: The settings.
        transformer, vae, text_encoder, scheduler: Wan's parts.
        adapter: Maps the language model's states (n, d) to rows (n, text_dim).
        boundary: The lowest noise level of the expert ``high_noise``. ``None`` with one transformer.
        timestep_per_token: Whether the transformer takes a noise level for each latent token (``expand_timesteps``).

    Attributes:
        loaded: The expert whose weights the transformer holds. ``None`` with one transformer.
    """

    transformer: WanTransformer3DModel
    vae: AutoencoderKLWan
    text_encoder: UMT5EncoderModel
    stacks = ("blocks",)
    tokenizer = "tokenizer"
    published_negative_prompt = NEGATIVE_PROMPT

    def __init__(
        self,
        config: DecoderConfig,
        transformer: WanTransformer3DModel,
        vae: AutoencoderKLWan,
        text_encoder: UMT5EncoderModel,
        scheduler: UniPCMultistepScheduler | FlowMatchEulerDiscreteScheduler,
        adapter: nn.Module,
        boundary: float | None,
        timestep_per_token: bool,
    ):
        super().__init__(config, transformer, vae, text_encoder, scheduler)
        self.adapter = adapter
        self.boundary = boundary
        self.timestep_per_token = timestep_per_token
        self.loaded: str | None = config.expert
        self.latent_channels = vae.config["z_dim"]
        self.space_factor = vae.config["scale_factor_spatial"]
        if config.gradient_checkpointing:
            transformer.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False))

    # ---------------------------------------------------------------- building

    @staticmethod
    def location_of(config: DecoderConfig, subfolder: str) -> Location:
        return Location(f"Wan {subfolder}".rstrip(), "decoder.weights", config.weights, config.revision, subfolder)

    @staticmethod
    def pretrained_parts(config: DecoderConfig) -> dict[str, Part]:
        location_of = partial(WanDecoder.location_of, config)
        tied = ("shared.", "encoder.embed_tokens.")
        return {
            "transformer": expert_part(config, config.expert or "high_noise"),
            "vae": Part(location_of("vae"), DIFFUSERS_FILES, {"vae.": ("",)}),
            "text_encoder": Part(
                location_of("text_encoder"),
                TRANSFORMERS_FILES,
                {"text_encoder.": ("",)} | {f"text_encoder.{name}": tied for name in tied},
            ),
        }

    @staticmethod
    def experts(config: DecoderConfig) -> dict[str, Part]:
        return {} if config.expert is None else {f"{name}_expert": expert_part(config, name) for name in EXPERTS}

    @classmethod
    def empty_vae(cls, config: DecoderConfig, read_config: ReadConfig) -> AutoencoderKLWan:
        return diffusers_part(cls.location_of(config, "vae"), (AutoencoderKLWan,), read_config)

    @classmethod
    def empty_text_encoder(cls, config: DecoderConfig, read_config: ReadConfig) -> UMT5EncoderModel:
        location = cls.location_of(config, "text_encoder")
        return transformers_part(location, UMT5Config, UMT5EncoderModel, read_config)

    @classmethod
    def empty(cls, config: DecoderConfig, states_dim: int, read_config: ReadConfig) -> "WanDecoder":
        def part(subfolder: str, *kinds: type[ConfigMixin]) -> Any:
            return diffusers_part(cls.location_of(config, subfolder), kinds, read_config)

        location = cls.location_of(config, "")
        pipeline = read_config(location, PIPELINE_CONFIG)
        if (found := pipeline.get("_class_name")) != WanPipeline.__name__:
            raise location.error(f"its {PIPELINE_CONFIG} is of a {found!r}, not a {WanPipeline.__name__}")
        boundary = pipeline.get("boundary_ratio")
        require(
            (boundary is None) == (config.expert is None),
            f"{config.weights} has {'one transformer' if boundary is None else 'two experts'}: "
            f"{'leave decoder.expert out' if boundary is None else 'set decoder.expert to high_noise or low_noise'}",
        )
        require(
            boundary is None or (isinstance(boundary, float) and 0 < boundary < 1),
            f"{config.weights}: the boundary_ratio in its {PIPELINE_CONFIG} should lie between 0 and 1, not {boundary}",
        )
        with torch.device("meta"):
            transformer = part(EXPERTS[config.expert or "high_noise"], WanTransformer3DModel)
            vae, text_encoder = cls.empty_vae(config, read_config), cls.empty_text_encoder(config, read_config)
        require_fit(config, transformer, vae, text_encoder)
        adapter = nn.Sequential(
            nn.Linear(states_dim, config.adapter_dim),
            nn.GELU(),
            nn.Linear(config.adapter_dim, transformer.config["text_dim"]),
        )
        with torch.device("cpu"):  # it computes its noise levels at once
            scheduler = part("scheduler", *SCHEDULERS)
        per_token = bool(pipeline.get("expand_timesteps"))
        return cls(config, transformer, vae, text_encoder, scheduler, adapter, boundary, per_token)

    def added(self) -> dict[str, nn.Module]:
        return {"adapter": self.adapter}

    # ---------------------------------------------------------------- conditioning

    @staticmethod
    def caption_tokenizer(tokenizer: PreTrainedTokenizerBase) -> CaptionTokenizer:
        return partial(umt5_ids, tokenizer)

    @staticmethod
    def caption_length(tokens: int) -> int:
        return min(tokens + 1, TEXT_ROWS)  # with the end token

    @staticmethod
    @torch.no_grad()
    def encode_captions(text_encoder: nn.Module, ids: list[list[int]], device: torch.device) -> list[Tensor]:
        """Computes UMT5's embeddings of each caption, (own length, text_dim).

        Captions are padded to 512 ids, as in diffusers' pipeline. In bf16 a shorter padding rounds differently.
        """
        counts = [len(own) for own in ids]
        padded = to_device(torch.tensor([own + [0] * (TEXT_ROWS - len(own)) for own in ids]), device)
        mask = to_device((torch.arange(TEXT_ROWS) < torch.tensor(counts)[:, None]).long(), device)
        states = text_encoder(input_ids=padded, attention_mask=mask).last_hidden_state
        return [own[:count] for own, count in zip(states, counts)]

    def condition(self, rows: list[GenerationRow], texts: Sequence[Tensor]) -> Tensor:
        """Builds the rows (B, 512, text_dim). A long caption is cut to leave room for the visual tokens.

        Raises:
            ConfigError: There are more than 512 visual tokens.
        """
        counts = [len(row.visual) for row in rows]
        require(
            max(counts) <= TEXT_ROWS,
            f"Wan reads {TEXT_ROWS} rows, but a clip has {max(counts)} visual tokens: give the tokeniser fewer",
        )
        adapted = self.adapter(torch.cat([row.visual for row in rows])).split(counts)
        joined = [torch.cat([own[: TEXT_ROWS - len(new)].to(new.dtype), new]) for own, new in zip(texts, adapted)]
        return torch.stack([pad(own, (0, 0, 0, TEXT_ROWS - len(own))) for own in joined])

    # ---------------------------------------------------------------- training

    def received_in_encoding(self, ranks: int, num_frames: int, height: int, width: int) -> int:
        return received_bytes(self.vae, ranks, num_frames, height, width)

    def share_rows(self, sequence: SequenceGroup) -> None:
        share_wan(self.transformer, sequence)
        share_wan_pieces(self.vae, sequence)

    def no_loss(self, states: Tensor) -> Tensor:
        return super().no_loss(states) + self.adapter(states.flatten(0, 1)[:0]).sum().float()

    def normalise(self, latents: Tensor) -> Tensor:
        mean, std = (
            to_device(torch.tensor(values), latents.device).view(-1, 1, 1, 1)
            for values in (self.vae.config["latents_mean"], self.vae.config["latents_std"])
        )
        return (latents - mean) / std

    def noise_level(self, normal: Tensor) -> Tensor:
        """Turns standard normal draws into noise levels: the usual distribution, restricted to the expert's range."""
        if self.boundary is not None:
            at = normal_of(self.boundary, self.shift)
            low, high = (at, math.inf) if self.config.expert == "high_noise" else (-math.inf, at)
            normal = truncated_normal(normal, low, high)
        return shifted_logit_normal(normal, self.shift)

    def velocity(self, noisy: Tensor, sigma: Tensor, conditioning: Tensor) -> Tensor:
        dtype = self.transformer.dtype
        timestep = sigma.flatten() * TIMESTEP_SCALE
        if self.timestep_per_token:
            tokens = noisy[0, 0].numel() // math.prod(self.transformer.config["patch_size"])
            timestep = timestep[:, None].expand(-1, tokens)
        return self.transformer(
            hidden_states=noisy.to(dtype),
            timestep=timestep,
            encoder_hidden_states=conditioning.to(dtype),
            return_dict=False,
        )[0]

    # ---------------------------------------------------------------- sampling

    def denoise(
        self,
        conditioning: Tensor,
        num_frames: int,
        steps: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        empty: Tensor | None = None,
    ) -> Tensor:
        trained = self.config.expert
        # diffusers takes None for parts that do not run, but its annotations do not say so.
        unused: dict[str, Any] = dict(tokenizer=None, text_encoder=None)
        pipeline = WanPipeline(
            vae=self.vae, scheduler=self.scheduler, transformer=self.transformer,
            transformer_2=None if trained is None else self.transformer, boundary_ratio=self.boundary,
            expand_timesteps=self.timestep_per_token, **unused,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        if trained is not None:
            self.load_expert("high_noise")
        try:
            return pipeline(
                prompt_embeds=conditioning,
                negative_prompt_embeds=empty,
                height=self.config.height,
                width=self.config.width,
                num_frames=num_frames,
                num_inference_steps=steps,
                guidance_scale=1.0 if empty is None else self.config.true_guidance,
                guidance_scale_2=None if empty is None else self.config.true_guidance_2,
                generator=generator,
                output_type="pt",
                callback_on_step_end=None if trained is None else self.cross_boundary,
            ).frames
        finally:
            if trained is not None:
                self.load_expert(trained)

    def cross_boundary(self, pipeline: WanPipeline, step: int, timestep: Tensor, state: dict) -> dict:
        """Loads the low-noise expert after a step of diffusers' pipeline, if the next step is below the boundary."""
        assert self.boundary is not None
        if (pipeline.scheduler.timesteps[step + 1 : step + 2] < self.boundary * TIMESTEP_SCALE).any():
            self.load_expert("low_noise")
        return {}

    @torch.no_grad()
    def load_expert(self, expert: str) -> None:
        """Reads an expert's weights into the transformer, unless it holds them. The transformer must not be sharded.

        Raises:
            ConfigError: The weights are missing.
        """
        if expert == self.loaded:
            return
        holder = nn.ModuleDict({"transformer": self.transformer})
        stored = expert_part(self.config, expert).all_tensors(shapes_of(holder))

        def read_of(name: str) -> Read:
            return stored[name].read_into

        for prefix, owner in holder.named_modules():
            for name, parameter in owner.named_parameters(recurse=False):
                reading(owner, prefix, name, read_of)(parameter.view(-1), 0)
        self.loaded = expert


def expert_part(config: DecoderConfig, expert: str) -> Part:
    """Returns where the weights of one of the transformers lie."""
    return Part(WanDecoder.location_of(config, EXPERTS[expert]), DIFFUSERS_FILES, {"transformer.": ("",)})
