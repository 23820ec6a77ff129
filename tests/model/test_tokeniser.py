import pytest
import torch
from transformers import CLIPVisionModel

from vtok.config import ConfigError, VTokConfig
from vtok.feature_extractor import VGG19FeatureExtractor, build_feature_extractor
from vtok.feature_extractor.pixels import CLIP_MEAN, CLIP_STD
from vtok.tokeniser import VTokTokeniser
from vtok.tokeniser.key_frame import detect_key_frame

SMALL_CLIP = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8
)


def small(**changes) -> VTokConfig:
    return VTokConfig(**dict(clip_config=SMALL_CLIP, token_dim=32, motion_stride=2, spatial_grid_size=2) | changes)


@pytest.mark.long
def test_clip_snippet(capsys):
    config = VTokConfig(backbone="clip", spatial_grid_size=4, token_dim=1024)
    assert VTokTokeniser(config)(torch.randn(1, 30, 3, 336, 336)).shape == (1, 20, 1024)
    assert capsys.readouterr().err.count("random weights") == 1


def test_vgg19_snippet():
    config = VTokConfig(backbone="vgg19", vgg_layer_index=25, spatial_grid_size=4, token_dim=512)
    assert VTokTokeniser(config)(torch.randn(1, 30, 3, 224, 224)).shape == (1, 20, 512)


@pytest.mark.parametrize("grid, tokens", [(1, 31), (2, 34), (4, 46), (5, 55)])
def test_five_seconds_at_24_fps(grid, tokens):
    clip = SMALL_CLIP | dict(image_size=40)
    config = small(clip_config=clip, spatial_grid_size=grid, motion_stride=None, motion_tokens_per_second=6)
    assert VTokTokeniser(config)(torch.randn(1, 121, 3, 40, 40), fps=24).shape == (1, tokens, 32)


def test_another_token_width_adds_a_linear_layer():
    tokeniser = VTokTokeniser(small(token_dim=48))
    assert isinstance(tokeniser.spatial_encoder.linear, torch.nn.Linear)
    assert tokeniser(torch.randn(2, 5, 3, 32, 32)).shape == (2, 4 + 2, 48)


def test_clip_features_are_layer_minus_two_without_cls(tiny_models):
    reference = CLIPVisionModel.from_pretrained(tiny_models / "clip").eval()
    extractor = build_feature_extractor(VTokConfig(weights=str(tiny_models / "clip")))
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    pixels = (frames / 255 - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
    with torch.no_grad():
        expected = reference(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        torch.testing.assert_close(extractor(frames).flatten(1, 2), expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(extractor(pixels).flatten(1, 2), expected, atol=1e-6, rtol=0)
    assert not any(p.requires_grad for p in extractor.parameters())


def test_motion_tokens_see_residuals():
    tokeniser = VTokTokeniser(small())
    still = torch.randn(1, 1, 3, 32, 32).expand(1, 5, 3, 32, 32)
    assert tokeniser.features(still).motion.abs().max() == 0
    moved = torch.cat([still[:, :4], torch.randn(1, 1, 3, 32, 32)], 1)
    motion = tokeniser.features(moved).motion
    assert motion[0, 0].abs().max() == 0 and motion[0, 1].abs().max() > 0
    encoded = tokeniser.feature_extractor(moved[0])
    torch.testing.assert_close(motion[0, 1], (encoded[4] - encoded[0]).mean((0, 1)), atol=1e-6, rtol=0)


def test_residual_grid_keeps_cells_in_one_token():
    tokeniser = VTokTokeniser(small(residual_grid=2))
    frames = torch.randn(1, 3, 3, 32, 32)
    features = tokeniser.features(frames)
    assert features.motion.shape == (1, 1, 4 * 32)
    encoded = tokeniser.feature_extractor(frames[0])
    cells = (encoded[2] - encoded[0]).reshape(2, 2, 2, 2, 32).mean((1, 3)).flatten()
    torch.testing.assert_close(features.motion[0, 0], cells, atol=1e-6, rtol=0)
    assert tokeniser.encode(features).shape == (1, 5, 32)


def test_key_frame_on_config_and_call():
    frames = torch.randn(1, 7, 3, 32, 32)
    called = VTokTokeniser(small())
    configured = VTokTokeniser(small(key_frame_idx=4))
    configured.load_state_dict(called.state_dict())
    torch.testing.assert_close(called(frames, key_frame_idx=4), configured(frames))
    assert called(frames, key_frame_idx=4).shape == called(frames).shape
    torch.testing.assert_close(
        called.features(frames, key_frame_idx=4).spatial, called.features(frames[:, 4:]).spatial, atol=1e-6, rtol=0
    )
    with pytest.raises(ConfigError, match="key_frame_idx 7"):
        called(frames, key_frame_idx=7)


def test_the_detected_key_frame_is_sharp_and_typical():
    """Not the flash, though it is the sharpest; not the blurred frames; found inside a padded clip too."""
    torch.manual_seed(0)
    blurred = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), scale_factor=4)[0]
    detail = 0.2 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)
    frames = torch.stack([blurred + 0.01 * i for i in range(8)])
    scene = frames[4] + detail
    frames[5] = scene
    frames[2] = 3 * torch.rand(3, 32, 32)
    assert detect_key_frame(frames) == 5
    assert detect_key_frame((frames * 50 + 50).round().to(torch.uint8)) == 5
    assert detect_key_frame(scene.expand(4, -1, -1, -1)) == 0

    tokeniser = VTokTokeniser(small(key_frame_idx="detect"))
    detected = tokeniser.features(torch.stack([frames, frames.flip(0)]), frame_counts=[8, 6])
    expected = tokeniser.features(frames[None], key_frame_idx=5)
    torch.testing.assert_close(detected.spatial[:1], expected.spatial)
    torch.testing.assert_close(detected.motion[0], expected.motion[0])
    torch.testing.assert_close(detected.spatial[1], expected.spatial[0])  # frame 2 of the flipped clip


def test_a_key_frame_in_mid_clip_has_residuals_on_both_sides():
    tokeniser = VTokTokeniser(small(motion_stride=1))
    frames = torch.randn(1, 5, 3, 32, 32)
    encoded = tokeniser.feature_extractor(frames[0])
    expected = [(encoded[i] - encoded[2]).mean((0, 1)) for i in (0, 1, 3, 4)]
    torch.testing.assert_close(tokeniser.features(frames, key_frame_idx=2).motion[0], torch.stack(expected))


def test_a_shorter_clip_gives_fewer_motion_tokens_and_padding_does_not_matter():
    tokeniser = VTokTokeniser(small())
    frames = torch.randn(3, 7, 3, 32, 32)
    features = tokeniser.features(frames, frame_counts=[7, 4, 1])
    assert features.motion_counts == [3, 1, 0] and features.token_counts == [7, 5, 4]
    alone = tokeniser.features(frames[1:2, :4])
    torch.testing.assert_close(features.motion[1, :1], alone.motion[0], atol=1e-6, rtol=0)
    assert features.motion[1, 1:].abs().max() == 0
    changed = frames.clone()
    changed[1, 4:] = 0
    assert torch.equal(tokeniser.features(changed, frame_counts=[7, 4, 1]).motion, features.motion)


@pytest.mark.parametrize("zipped", [True, False])
def test_torchvision_vgg19_checkpoint_loads(tmp_path, zipped):
    """Torchvision's own file is in the format before PyTorch 1.6."""
    torch.manual_seed(0)
    full = VGG19FeatureExtractor(36).state_dict()  # torchvision's file has all 16 convolutions, and a classifier
    stored = full | {"classifier.0.weight": torch.zeros(2, 2)}
    torch.save(stored, tmp_path / "vgg19.pth", _use_new_zipfile_serialization=zipped)
    config = VTokConfig(backbone="vgg19", weights=str(tmp_path / "vgg19.pth"), token_dim=512)
    loaded = build_feature_extractor(config).state_dict()
    assert loaded.keys() == {f"features.{i}.{w}" for i in (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25)
                             for w in ("weight", "bias")}  # fmt: skip
    assert all(torch.equal(loaded[key], full[key]) for key in loaded)


def test_weights_that_are_not_there_are_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        build_feature_extractor(VTokConfig(backbone="vgg19", weights=str(tmp_path / "none.pth")))
    with pytest.raises(ConfigError, match="no CLIP in"):
        build_feature_extractor(VTokConfig(weights=str(tmp_path / "none")))
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "bad.pth")
    with pytest.raises(ConfigError, match="features.0.weight"):
        build_feature_extractor(VTokConfig(backbone="vgg19", weights=str(tmp_path / "bad.pth")))
