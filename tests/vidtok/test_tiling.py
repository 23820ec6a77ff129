"""Tiles over height and width: exact for operations on single pixels, close where attention and edges matter."""

import pytest
import torch

from support.vidtok import random_video, small_model
from vtok.config import ConfigError
from vtok.vidtok.tiling import blended_tiles, tile_starts


def test_tiles_cover_everything_and_have_one_size():
    assert tile_starts(100, 32, 8) == [0, 24, 48, 68]
    assert tile_starts(32, 32, 8) == [0] and tile_starts(20, 32, 8) == [0]
    with pytest.raises(ConfigError, match="less than their side of 32, not 32"):
        tile_starts(100, 32, 32)


@pytest.mark.parametrize("scale, shrink", [(1.0, 1), (0.5, 2), (2.0, 1)])
def test_an_operation_that_sees_single_pixels_is_exact_in_tiles(scale, shrink):
    x = torch.rand(2, 3, 80, 56, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)

    def operation(part):
        copies = round(max(scale, 1))
        part = part[:, :, ::shrink, ::shrink]
        return part.repeat_interleave(copies, 2).repeat_interleave(copies, 3)

    torch.testing.assert_close(blended_tiles(x, 48, 16, scale, operation), operation(x))


@torch.no_grad()
def test_a_frame_that_fits_one_tile_is_exact():
    model, x = small_model("vidtok_kl_causal_488_4chn"), random_video(5, size=64)
    whole = model(x)[1]
    model.tile, model.tile_overlap = 64, 32
    torch.testing.assert_close(model(x)[1], whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_wider_tiles_overlap_the_closer_they_are_to_the_whole():
    model, x = small_model("vidtok_kl_causal_488_4chn_v1_1", ch=8), smooth_video(1, 128)
    z, whole, _ = model(x)
    encoding, decoding = [], []
    for model.tile_overlap in (0, 16, 48):
        model.tile = 64
        encoding.append((model.encode(x) - z).square().mean())
        decoding.append((model.decode(z)[:, :, -1:] - whole).square().mean())
    assert encoding[0] > encoding[1] > encoding[2] > 0 and decoding[0] > decoding[1] > decoding[2] > 0
    assert encoding[2] < 0.1 * z.var() and decoding[2] < 0.25 * whole.var()


def smooth_video(frames: int, size: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(random_video(frames, size // 8), (frames, size, size), mode="trilinear")


@torch.no_grad()
def test_tiles_and_a_state_do_not_go_together():
    model = small_model("vidtok_kl_causal_488_4chn")
    model.tile = 32
    with pytest.raises(ConfigError, match="set tile = None"):
        model.encode(random_video(5, 64), state=model.start_encoding(5))
