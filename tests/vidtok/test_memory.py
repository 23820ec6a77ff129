"""Counts the bytes of live tensors on the meta device, where nothing is computed; kernels' workspaces do not count."""

import pytest
import torch

from support.live_memory import LiveMemory
from vtok.vidtok import VidTok, load_model


def meta_model(name: str, **overrides) -> VidTok:
    with torch.device("meta"):
        return load_model(name, **overrides).eval()


@torch.no_grad()
def peaks(model: VidTok, frames: int, size: int) -> tuple[int, int]:
    """Returns the peaks of encoding and of decoding in bytes, without weights and input."""
    x = torch.empty(1, 3, frames, size, size, device="meta")
    with LiveMemory([*model.parameters(), x]) as encoding:
        z = model.encode(x)
    with LiveMemory([*model.parameters(), z]) as decoding:
        video = model.decode(z)
    return encoding.peak, decoding.peak - video.nbytes


def test_in_chunks_memory_does_not_grow_with_the_length():
    model = meta_model("vidtok_kl_causal_488_4chn_v1_1", ch=8, num_res_blocks=1)
    at_once = peaks(model, 33, 64)
    model.use_tiling, model.t_chunk_enc, model.t_chunk_dec = True, 4, 1
    short, long = peaks(model, 17, 64), peaks(model, 33, 64)
    for index in (0, 1):
        assert long[index] < 1.05 * short[index] < 0.5 * at_once[index]


@pytest.mark.long
def test_17_frames_of_768_pixels_fit_6_gb():
    """Published width, fp32, weights included, chunks of four frames, tiles of 384 pixels: the peak is 5.1 GB."""
    model = meta_model("vidtok_kl_causal_488_4chn")
    model.use_tiling, model.t_chunk_enc, model.t_chunk_dec, model.tile = True, 4, 1, 384
    weights = sum(parameter.nbytes for parameter in model.parameters())
    video = 2 * 3 * 17 * 768 * 768 * 4
    assert weights + video + max(peaks(model, 17, 768)) < 6e9
