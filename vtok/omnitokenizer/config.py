"""The sizes of an OmniTokenizer. The defaults are those of the published checkpoints of images and videos."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from vtok.config import ConfigError, require


@dataclass(frozen=True)
class OmniTokenizerConfig:
    """The architecture. Names are those of the published command line.

    Args:
        resolution: Height and width of the frames, in pixels.
        patch_size: Pixels along a side of a patch.
        temporal_patch_size: Frames of a patch, behind the first frame, which is patched alone.
        enc_block, dec_block: A letter for each spatial layer: ``t`` attends to the whole frame, ``w`` to windows.
        twod_window_size: Patches along a side of a window.
        temporal_depth: Layers of causal attention over time.
        embedding_dim: Width of the layers.
        heads, dim_head: Heads of attention and their width.
        ff_mult: The MLPs are this times 2/3 as wide as the layers.
        spatial_pos: ``rope`` turns queries and keys by their place in the frame; ``rel`` does not.
        n_codes, codebook_dim: Size of the codebook and width of its vectors.

    Raises:
        ConfigError: Sizes do not divide each other.
    """

    resolution: int = 256
    patch_size: int = 8
    temporal_patch_size: int = 4
    enc_block: str = "ttww"
    dec_block: str = "tttt"
    twod_window_size: int = 8
    temporal_depth: int = 4
    embedding_dim: int = 512
    heads: int = 8
    dim_head: int = 64
    ff_mult: float = 4.0
    spatial_pos: Literal["rope", "rel"] = "rope"
    n_codes: int = 8192
    codebook_dim: int = 8

    def __post_init__(self) -> None:
        grid = self.resolution // self.patch_size
        require(self.resolution % self.patch_size == 0, "an OmniTokenizer's patch_size should divide its resolution")
        require(
            "w" not in self.enc_block + self.dec_block or grid % self.twod_window_size == 0,
            f"an OmniTokenizer's twod_window_size should divide its {grid} patches along a side",
        )
        require(set(self.enc_block + self.dec_block) <= set("tw"), "an OmniTokenizer's blocks are t or w here")
        require(self.spatial_pos in ("rope", "rel"), "an OmniTokenizer's spatial_pos is rope or rel here")
        require(self.dim_head % 4 == 0, "an OmniTokenizer's dim_head should be a multiple of 4")

    @property
    def grid(self) -> int:
        """Patches along a side of a frame."""
        return self.resolution // self.patch_size


def omni_config(settings: Mapping[str, Any] | None = None) -> OmniTokenizerConfig:
    """Returns the published sizes with the given changes; raises ConfigError if a field does not exist."""
    values, names = dict(settings or {}), [field.name for field in fields(OmniTokenizerConfig)]
    if unknown := values.keys() - set(names):
        raise ConfigError(f"an OmniTokenizer has no setting {min(unknown)}: choose from {', '.join(names)}")
    return OmniTokenizerConfig(**values)


def published_config(arguments: Mapping[str, Any]) -> OmniTokenizerConfig:
    """Returns the sizes in the arguments that a published checkpoint was trained with.

    Raises:
        ConfigError: It is of a kind that is not supported here.
    """
    wanted = dict(patch_embed="linear", use_vae=False, l2_code=True, use_external_codebook=False)
    wanted |= dict(defer_temporal_pool=False, defer_spatial_pool=False, gen_upscale=None)
    for name, value in wanted.items():
        require(
            arguments.get(name, value) == value,
            f"this OmniTokenizer has {name} {arguments.get(name)}: here it should be {value}",
        )
    names = {field.name for field in fields(OmniTokenizerConfig)} - {"spatial_pos"}
    values = {name: arguments[name] for name in names & arguments.keys()}
    return OmniTokenizerConfig(**values, spatial_pos=arguments.get("spatial_pos", "rel"))
