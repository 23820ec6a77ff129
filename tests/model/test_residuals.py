"""Residuals to the step before, and their pooling by a query."""

import pytest
import torch

from vtok.config import VTokConfig
from vtok.feature_scale import FeatureScale
from vtok.motion_encoder import QueryMotionEncoder
from vtok.tokeniser import VTokTokeniser
from vtok.tokeniser.layout import references

SMALL_CLIP = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8
)


def small(**changes) -> VTokConfig:
    return VTokConfig(**dict(clip_config=SMALL_CLIP, token_dim=32, motion_stride=1, spatial_grid_size=2) | changes)


def test_what_a_step_s_residual_is_taken_to():
    """0 is the key frame, i + 1 is step i."""
    assert references([1, 2, 3], key=0) == [0, 0, 0]
    assert references([1, 2, 3], key=0, previous=True) == [0, 1, 2]
    assert references([0, 1, 3, 4], key=2, previous=True) == [2, 0, 0, 3]
    assert references([0, 1], key=2, previous=True) == [2, 0]
    assert references([], key=0) == references([], key=0, previous=True) == []
    # A further key frame at step 1: it refers to the first one, and the steps behind it refer to it.
    assert references([1, 2, 3, 4], key=0, key_steps=[1]) == [0, 0, 2, 2]
    assert references([1, 2, 3, 4], key=0, key_steps=[0, 2]) == [0, 1, 1, 3]


@pytest.mark.parametrize("grid", [1, 2])
@pytest.mark.parametrize("key", [0, 2, 4])
def test_residuals_to_the_step_before_add_up_to_the_residual_to_the_key_frame(key, grid):
    to_key = VTokTokeniser(small(residual_grid=grid))
    to_previous = VTokTokeniser(small(residual_grid=grid, residual_to="previous"), to_key.feature_extractor)
    frames = torch.randn(2, 5, 3, 32, 32)
    one, other = (tokeniser.features(frames, [5, 5], key_frame_idx=key) for tokeniser in (to_key, to_previous))
    assert torch.equal(one.spatial, other.spatial)
    before, after = other.motion[:, :key], other.motion[:, key:]
    summed = torch.cat([before.flip(1).cumsum(1).flip(1), after.cumsum(1)], dim=1)
    torch.testing.assert_close(summed, one.motion, atol=1e-5, rtol=1e-5)


def test_padding_does_not_matter_to_residuals_to_the_step_before():
    tokeniser = VTokTokeniser(small(residual_to="previous"))
    frames = torch.randn(3, 7, 3, 32, 32)
    features = tokeniser.features(frames, frame_counts=[7, 4, 1])
    alone = tokeniser.features(frames[1:2, :4])
    torch.testing.assert_close(features.motion[1, :3], alone.motion[0], atol=1e-6, rtol=0)
    assert features.motion_counts == [6, 3, 0] and not features.motion[1, 3:].any()


def test_a_query_without_a_preference_takes_the_mean_of_the_cells():
    encoder, scale = QueryMotionEncoder(2, 6, 10, hidden_dim=16), FeatureScale(24)
    scale.set(torch.full((24,), 2.0), torch.full((24,), 4.0))
    pooled = torch.randn(3, 5, 24)
    torch.nn.init.zeros_(encoder.query)
    cells = ((pooled - 2) / 4).view(3, 5, 4, 6) + encoder.place
    torch.testing.assert_close(encoder(pooled, scale), encoder.g_phi(encoder.values(cells).mean(2)))


def test_a_query_finds_the_cell_that_it_looks_for():
    """Keys point at the one cell with a large first feature, wherever it is; places are switched off."""
    encoder, scale = QueryMotionEncoder(2, 6, 10, hidden_dim=16), FeatureScale(24)
    torch.nn.init.zeros_(encoder.place)
    torch.nn.init.ones_(encoder.query)
    with torch.no_grad():
        encoder.keys.weight[:] = torch.eye(1, 6) * 50
    cells = torch.randn(4, 6)
    cells[:, 0] = 0
    for moved in range(4):
        changed = cells.clone()
        changed[moved, 0] = 1
        expected = encoder.g_phi(encoder.values(changed[moved]))
        torch.testing.assert_close(encoder(changed.flatten(), scale), expected, atol=1e-5, rtol=1e-5)
