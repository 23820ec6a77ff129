"""What a VidTok is made of, and how the published names say it.

``vidtok_kl_causal_488_4chn_v1_1``: regulariser, time handling, compression (frames, height, width), channels of the
latent (``kl``) or codes of the vocabulary (``fsq``), version.
"""

import difflib
import re
from dataclasses import dataclass, fields, replace
from typing import Literal

from vtok.config import ConfigError, require

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

# Compression -> width of each level, levels after which space and then time are halved, and doubled.
RESAMPLING = {
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

    Args:
        regulariser: ``kl`` (a Gaussian over latents) or ``fsq`` (finite scalar quantisation).
        time: ``causal`` (v1.0: the past of a clip is zeros), ``causal_v1_1`` (its first frame), or ``noncausal``.
        z_channels: channels of the latent; of ``fsq`` as many as there are ``levels``.
        levels: codes of each dimension of ``fsq``.
        ch, ch_mult: width of level i is ``ch * ch_mult[i]``; level 0 has the full resolution.
        num_res_blocks: pairs of spatial and temporal blocks in a level of the encoder; the decoder has one more.
        spatial_ds, tempo_ds: levels of the encoder that are followed by halving height and width, and time.
        spatial_us, tempo_us: levels of the decoder that are followed by doubling them.
    """

    regulariser: Literal["kl", "fsq"]
    time: Literal["causal", "causal_v1_1", "noncausal"]
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
            self.regulariser == "kl" or len(self.levels) == self.z_channels, "an FSQ has one level for each channel"
        )
        require(all(level >= 2 for level in self.levels), "the levels of an FSQ must be at least 2")
        for what, down, up in (
            ("spatial", self.spatial_ds, self.spatial_us), ("tempo", self.tempo_ds, self.tempo_us),
        ):  # fmt: skip
            require(
                len(set(down)) == len(down) == len(set(up)) == len(up),
                f"{what}_ds and {what}_us should name as many levels each, and none twice: {down} and {up}",
            )
            require(
                all(0 <= level < len(self.ch_mult) for level in (*down, *up)),
                f"{what}_ds and {what}_us should name levels of ch_mult, 0 to {len(self.ch_mult) - 1}: {down} and {up}",
            )
        require(
            set(self.tempo_ds) <= set(self.spatial_ds) and set(self.tempo_us) <= set(self.spatial_us),
            "time is resampled behind space: tempo_ds should be among spatial_ds, and tempo_us among spatial_us",
        )

    @property
    def is_causal(self) -> bool:
        return self.time != "noncausal"

    @property
    def time_factor(self) -> int:
        """f: frames a latent frame stands for."""
        return 2 ** len(self.tempo_ds)

    @property
    def space_factor(self) -> int:
        """Pixels a side of a latent pixel."""
        return 2 ** len(self.spatial_ds)

    def latent_frames(self, frames: int) -> int:
        """t of a clip of so many frames, as :meth:`vtok.vidtok.VidTok.encode` gives it."""
        if self.time == "causal" and frames % self.time_factor:
            frames += self.time_factor - 1
        return -(-frames // self.time_factor) if self.time == "causal_v1_1" else frames // self.time_factor

    @property
    def encoder_channels(self) -> int:
        """What the encoder gives: of ``kl`` mean and log variance."""
        return self.z_channels * (2 if self.regulariser == "kl" else 1)

    def width(self, level: int) -> int:
        return self.ch * self.ch_mult[level]


def published_config(name: str, **overrides) -> VidTokConfig:
    """The configuration of a published name.

    Args:
        overrides: fields of :class:`VidTokConfig` that shall differ, such as ``ch=32``.

    Raises:
        ConfigError: no such name or field.
    """
    match = NAME.fullmatch(name)
    require(match is not None, f"{name!r} is no VidTok's name; one is vidtok_kl_causal_488_4chn")
    regulariser, time, compression, channels, codes, version = match.groups()
    require(
        (regulariser == "kl") == (channels is not None) and not (version and time == "noncausal"),
        f"{name!r} is no VidTok's name: kl goes with channels (4chn), fsq with codes (32768), v1_1 with causal",
    )
    levels = fsq_levels(int(codes)) if codes else ()
    config = VidTokConfig(
        regulariser=regulariser,
        time=f"{time}{version or ''}",
        z_channels=int(channels) if channels else len(levels),
        levels=levels,
        **RESAMPLING[compression],
    )
    return changed(config, **overrides)


def fsq_levels(codes: int) -> tuple[int, ...]:
    """As many dimensions of eight levels as give ``codes``."""
    count = round((codes.bit_length() - 1) / 3)
    require(FSQ_LEVELS**count == codes, f"a published codebook has a power of {FSQ_LEVELS} codes, not {codes}")
    return (FSQ_LEVELS,) * count


def changed(config: VidTokConfig, **overrides) -> VidTokConfig:
    """Raises ConfigError: a field does not exist; the nearest one is named."""
    known = [field.name for field in fields(VidTokConfig)]
    for name in overrides:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"a VidTok has no setting {name}; did you mean {nearest}?")
    return replace(config, **overrides)
