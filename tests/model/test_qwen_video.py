"""Patches of Qwen2.5-VL, without torchvision: against transformers' own image processor and a plain convolution."""

import numpy as np
import pytest
import torch
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vtok.feature_extractor.pixels import CLIP_MEAN, CLIP_STD, normalise
from vtok.feature_extractor.qwen25_vl import fit, patchify

CONFIG = Qwen2_5_VLVisionConfig()


def random_frames(count, height, width):
    shape = (count, 3, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_still_is_what_the_library_makes_of_an_image():
    frame = random_frames(1, 84, 140)
    ours = patchify(frame, CONFIG)
    library = Qwen2VLImageProcessorPil()(frame[0].permute(1, 2, 0).numpy(), do_resize=False, return_tensors="pt")
    assert torch.equal(ours.grid, library["image_grid_thw"])
    torch.testing.assert_close(ours.patches, library["pixel_values"], atol=1e-5, rtol=0)
    assert ours.tokens(CONFIG) == 3 * 5


def test_patches_of_a_video_embed_as_a_plain_convolution_over_time_and_space():
    frames = random_frames(5, 56, 84)  # the fifth is doubled
    video = patchify(frames, CONFIG)
    assert video.grid.tolist() == [[3, 4, 6]] and video.tokens(CONFIG) == 3 * 2 * 3
    torch.manual_seed(0)
    embed = Qwen2_5_VisionPatchEmbed(CONFIG.patch_size, CONFIG.temporal_patch_size, 3, 32)
    pixels = normalise(frames[[0, 1, 2, 3, 4, 4]], CLIP_MEAN, CLIP_STD, torch.float32)
    plain = embed.proj(pixels.transpose(0, 1)[None])[0]  # (32, 3, 4, 6)
    merged = plain.reshape(32, 3, 2, 2, 3, 2).permute(1, 2, 4, 3, 5, 0).reshape(-1, 32)
    torch.testing.assert_close(embed(video.patches), merged, atol=1e-4, rtol=0)


@pytest.mark.parametrize("height, width", [(64, 64), (100, 300), (1080, 1920)])
def test_frames_fit_whole_merged_patches_and_the_number_of_pixels(height, width):
    frames = random_frames(1, height, width)
    fitted = fit(frames, CONFIG, 56 * 56, 28 * 28 * 100)
    rows, columns = fitted.shape[-2:]
    assert rows % 28 == columns % 28 == 0 and 56 * 56 <= rows * columns <= 28 * 28 * 100
    assert np.isclose(columns / rows, width / height, rtol=0.3) and fitted.dtype == torch.uint8
