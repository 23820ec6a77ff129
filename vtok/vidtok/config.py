"""The architecture of a VidTok, and the published names that describe one.

``vidtok_kl_causal_488_4chn_v1_1`` names, in order: the regulariser; the handling of time; the compression of frames,
height and width; the channels of the latent (``kl``) or the codes of the vocabulary (``fsq``); the version.
"""

import difflib
import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, TypedDict, TypeVar, cast

from vtok.config import ConfigError, require

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Regulariser = Literal["kl", "fsq"]
Time = Literal["causal", "causal_v1_1", "noncausal"]
C = TypeVar("C", bound="DataclassInstance")

NAME = re.compile(r"vidtok_(kl|fsq)_(causal|noncausal)_(288|444|488|888|41616)_(?:(\d+)chn|(\d+))(_v1_1)?")
FSQ_LEVELS = 8  # codes of each dimension, in every published codebook

# The configurations whose weights are published.
PUBLISHED = (
    "vidtok_fsq_causal_41616_262144",
    "vidtok_fsq_causal_41616_262144_v1_1",
    "vidtok_fsq_causal_488_262144",
    "vidtok_fsq_causal_488_32768",
    "vidtok_fsq_causal_488_32768_v1_1",
    "vidtok_fsq_causal_488_4096",
    "vidtok_fsq_causal_888_32768_v1_1",
    "vidtok_fsq_noncausal_41616_262144",
    "vidtok_fsq_noncausal_488_262144",
    "vidtok_kl_causal_288_8chn",
    "vidtok_kl_causal_288_8chn_v1_1",
    "vidtok_kl_causal_41616_16chn_v1_1",
    "vidtok_kl_causal_41616_4chn",
    "vidtok_kl_causal_444_4chn",
    "vidtok_kl_causal_488_16chn",
    "vidtok_kl_causal_488_16chn_v1_1",
    "vidtok_kl_causal_488_4chn",
    "vidtok_kl_causal_488_4chn_v1_1",
    "vidtok_kl_causal_488_8chn",
    "vidtok_kl_noncausal_41616_16chn",
    "vidtok_kl_noncausal_41616_4chn",
    "vidtok_kl_noncausal_488_16chn",
    "vidtok_kl_noncausal_488_4chn",
)


class Resampling(TypedDict):
    """The fields of :class:`VidTokConfig` that a compression determines."""

    ch_mult: tuple[int, ...]
    spatial_ds: tuple[int, ...]
    spatial_us: tuple[int, ...]
    tempo_ds: tuple[int, ...]
    tempo_us: tuple[int, ...]


# By compression: frames, height and width per latent.
RESAMPLING: dict[str, Resampling] = {
    "288": dict(ch_mult=(1, 2, 4, 4), spatial_ds=(0, 1, 2), spatial_us=(1, 2, 3), tempo_ds=(1,), tempo_us=(2,)),
    "444": dict(ch_mult=(1, 2, 4, 4), spatial_ds=(1, 2), spatial_us=(1, 2), tempo_ds=(1, 2), tempo_us=(1, 2)),
    "488": dict(ch_mult=(1, 2, 4, 4), spatial_ds=(0, 1, 2), spatial_us=(1, 2, 3), tempo_ds=(1, 2), tempo_us=(1, 2)),
    "888": dict(
        ch_mult=(1, 2, 4, 4), spatial_ds=(0, 1, 2), spatial_us=(1, 2, 3), tempo_ds=(0, 1, 2), tempo_us=(1, 2, 3)
    ),
    "41616": dict(
        ch_mult=(1, 2, 4, 4, 4), spatial_ds=(0, 1, 2, 3), spatial_us=(1, 2, 3, 4), tempo_ds=(2, 3), tempo_us=(1, 2)
    ),
}


@dataclass(frozen=True)
class VidTokConfig:
    """The architecture of Tang et al., 2024 (arXiv 2412.13061), section 3.

    Level i has ``ch * ch_mult[i]`` channels. Level 0 has the full resolution, in the encoder and in the decoder.

    Args:
        regulariser: ``kl`` (a Gaussian over latents) or ``fsq`` (finite scalar quantisation).
        time: ``causal`` pads the start of a clip with zeros (v1.0), ``causal_v1_1`` with copies of its first frame.
            ``noncausal`` lets a frame see later frames.
        z_channels: Channels of the latent. With ``fsq`` there is one channel for each entry of ``levels``.
        ch_mult: Width of each level, as a multiple of ``ch``.
        spatial_ds: Levels of the encoder after which height and width are halved.
        spatial_us: Levels of the decoder after which height and width are doubled.
        tempo_ds: Levels of the encoder after which time is halved.
        tempo_us: Levels of the decoder after which time is doubled.
        levels: Codes of each dimension of ``fsq``.
        ch: Base width.
        num_res_blocks: Pairs of a block over space and a block over time in each level of the encoder. A level of the
            decoder has one pair more.

    Raises:
        ConfigError: The fields contradict each other.
    """

    regulariser: Regulariser
    time: Time
    z_channels: int
    ch_mult: tuple[int, ...]
    spatial_ds: tuple[int, ...]
    spatial_us: tuple[int, ...]
    tempo_ds: tuple[int, ...]
    tempo_us: tuple[int, ...]
    levels: tuple[int, ...] = ()
    ch: int = 128
    num_res_blocks: int = 2

    def __post_init__(self):
        require(self.ch >= 1 and self.num_res_blocks >= 1, "a VidTok's ch and num_res_blocks must be at least 1")
        require(
            self.regulariser == "kl" or len(self.levels) == self.z_channels,
            "fsq needs one entry of levels for each of z_channels",
        )
        require(all(level >= 2 for level in self.levels), "the levels of an FSQ must be at least 2")
        for what, down, up in (
            ("spatial", self.spatial_ds, self.spatial_us), ("tempo", self.tempo_ds, self.tempo_us),
        ):  # fmt: skip
            require(
                len(set(down)) == len(down) == len(set(up)) == len(up),
                f"{what}_ds and {what}_us must have equally many levels, none of them twice: {down} and {up}",
            )
            require(
                all(0 <= level < len(self.ch_mult) for level in (*down, *up)),
                f"{what}_ds and {what}_us should name levels of ch_mult, 0 to {len(self.ch_mult) - 1}: {down} and {up}",
            )
        require(
            set(self.tempo_ds) <= set(self.spatial_ds) and set(self.tempo_us) <= set(self.spatial_us),
            "levels resample time only after space: tempo_ds should be among spatial_ds, tempo_us among spatial_us",
        )

    @property
    def is_causal(self) -> bool:
        """Whether no frame sees a later frame."""
        return self.time != "noncausal"

    @property
    def time_factor(self) -> int:
        """Frames per latent frame: f."""
        return 2 ** len(self.tempo_ds)

    @property
    def space_factor(self) -> int:
        """Pixels per latent pixel, along a side: s."""
        return 2 ** len(self.spatial_ds)

    def latent_frames(self, frames: int) -> int:
        """Returns how many latent frames :meth:`vtok.vidtok.VidTok.encode` makes of ``frames`` frames."""
        if self.time == "causal" and frames % self.time_factor:
            frames += self.time_factor - 1
        return -(-frames // self.time_factor) if self.time == "causal_v1_1" else frames // self.time_factor

    @property
    def encoder_channels(self) -> int:
        """Output channels of the encoder. With ``kl`` they hold a mean and a log variance for each latent channel."""
        return self.z_channels * (2 if self.regulariser == "kl" else 1)

    def width(self, level: int) -> int:
        """Returns the channels of a level."""
        return self.ch * self.ch_mult[level]


def published_config(name: str, **overrides) -> VidTokConfig:
    """Returns the configuration that a name describes; names of the published form without published weights work too.

    Args:
        name: A name as the module's documentation explains it.
        **overrides: Fields of :class:`VidTokConfig` to change, such as ``ch=32``.

    Raises:
        ConfigError: The name is malformed, or a field does not exist.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise ConfigError(f"{name!r} is not the name of a VidTok; an example is vidtok_kl_causal_488_4chn")
    regulariser, time, compression, channels, codes, version = match.groups()
    require(
        (regulariser == "kl") == (channels is not None) and not (version and time == "noncausal"),
        f"{name!r} is not the name of a VidTok: kl takes channels (4chn), fsq takes codes (32768), v1_1 needs causal",
    )
    levels = fsq_levels(int(codes)) if codes else ()
    config = VidTokConfig(
        regulariser=cast(Regulariser, regulariser),
        time=cast(Time, f"{time}{version or ''}"),
        z_channels=int(channels) if channels else len(levels),
        levels=levels,
        **RESAMPLING[compression],
    )
    return changed(config, **overrides)


def fsq_levels(codes: int) -> tuple[int, ...]:
    """Returns the levels of a codebook of ``codes`` codes: eight in each dimension.

    Raises:
        ConfigError: ``codes`` is not a power of eight.
    """
    count = round((codes.bit_length() - 1) / 3)
    require(FSQ_LEVELS**count == codes, f"a published codebook has a power of {FSQ_LEVELS} codes, not {codes}")
    return (FSQ_LEVELS,) * count


def changed(config: C, **overrides) -> C:
    """Returns a copy of ``config`` with some fields changed.

    Raises:
        ConfigError: A field does not exist (the message names the nearest one), or the fields contradict each other.
    """
    known = [field.name for field in fields(config)]
    for name in overrides:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            kind = type(config).__name__.removesuffix("Config")
            raise ConfigError(f"a {kind} has no setting {name}; did you mean {nearest}?")
    return replace(config, **overrides)
