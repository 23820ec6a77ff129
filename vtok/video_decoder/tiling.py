"""Encodes and decodes large frames in diffusers' overlapping, blended tiles, to save memory.

The latents of tiles are close to those of the whole frame, not equal. So tiling is a setting: ``decoder.vae_tiling``.
"""

from typing import TypeGuard

from diffusers.models import AutoencoderKLHunyuanVideo, AutoencoderKLWan

from vtok.config import DecoderConfig, VaeTiling, require
from vtok.video_decoder.autoencoder import Autoencoder

# The largest frames, in pixels, that ``auto`` leaves whole: encoding a clip stays below 16 GB, decoding it below 21 GB.
# Peaks in GB for one clip, encode / decode, measured by pipelines/metering/meter.py: HunyuanVideo in bf16, Wan in fp32.
#
#                  320 x 576 x 121    480 x 832 x 81    720 x 1280 x 121
#     HunyuanVideo      4.1 /  7.4       8.9 / 15.9         31.3 / 37.0
#       in tiles        1.5 /  2.7       1.5 /  2.8          1.5 / not counted
#     Wan2.1            2.6 /  3.9       5.6 /  8.2         13.0 / 19.3
#     Wan2.2-TI2V-5B    1.6 /  4.2       3.3 /  9.0          7.8 / 20.7     (704 x 1280)
#
# HunyuanVideo's peak grows with the square of the frame, since its attention masks all pairs of latent pixels in a
# window of frames: 72,000 x 72,000 at 720p. Tiles cost it 1.45 to 1.63 times the FLOPs.
LARGEST_WHOLE: dict[type, int] = {AutoencoderKLHunyuanVideo: 480 * 832, AutoencoderKLWan: 720 * 1280}


def can_tile(vae: Autoencoder) -> TypeGuard[AutoencoderKLHunyuanVideo | AutoencoderKLWan]:
    """Whether the autoencoder has tiles."""
    return type(vae) in LARGEST_WHOLE


def is_tiled(vae: Autoencoder, setting: VaeTiling, height: int, width: int) -> bool:
    """Whether frames of this size are tiled. diffusers still leaves frames whole that fit into one tile."""
    if not can_tile(vae):
        return False
    return height * width > LARGEST_WHOLE[type(vae)] if setting == "auto" else setting


def set_tiling(vae: Autoencoder, setting: VaeTiling, height: int, width: int) -> None:
    """Turns tiling on or off for the next ``encode`` or ``decode`` of frames of this size."""
    if can_tile(vae):
        vae.use_tiling = is_tiled(vae, setting, height, width)


def require_tiling(config: DecoderConfig, vae: Autoencoder) -> None:
    """Raises :class:`ConfigError` if tiles are asked for and the autoencoder has none."""
    require(
        config.vae_tiling is not True or can_tile(vae),
        f"decoder.vae_tiling is true, but a {type(vae).__name__} has no tiles: set it to auto or false",
    )
