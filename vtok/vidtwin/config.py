"""The architecture of a VidTwin."""

from dataclasses import dataclass

from vtok.config import require

NAME = "vidtwin_structure_7_7_8_dynamics_7_8"  # the one published configuration, which the defaults describe


@dataclass(frozen=True)
class VidTwinConfig:
    """The architecture of Wang et al., 2024 (arXiv 2412.17726), section 3.

    Args:
        frames: Frames of a clip.
        side: Height and width of a frame in pixels.
        patch: Side of a patch in pixels.
        width: Channels of encoder and decoder.
        depth: Blocks of each.
        heads: Attention heads of a block.
        queries: Queries of the Q-Former, which take the place of frames.
        query_width: Channels of a query.
        structure_channels: Channels of the structure latent.
        structure_halvings: How often the grid of places is halved for it.
        dynamics_channels: Channels of the dynamics latents.
        dynamics_halvings: How often the grid of places is halved for them.

    Raises:
        ConfigError: The patches do not fill a frame, or the heads do not divide the width.
    """

    frames: int = 16
    side: int = 224
    patch: int = 16
    width: int = 768
    depth: int = 16
    heads: int = 12
    queries: int = 16
    query_width: int = 64
    structure_channels: int = 8
    structure_halvings: int = 1
    dynamics_channels: int = 8
    dynamics_halvings: int = 1

    def __post_init__(self) -> None:
        require(self.side % self.patch == 0, f"a side of {self.side} is not a multiple of patches of {self.patch}")
        require(self.width % (4 * self.heads) == 0, f"width {self.width} is not a multiple of 4 x {self.heads} heads")

    @property
    def grid(self) -> int:
        """Patches along a side of a frame."""
        return self.side // self.patch

    @property
    def space_factor(self) -> int:
        """Heights and widths must be multiples of it: there is one size."""
        return self.side
