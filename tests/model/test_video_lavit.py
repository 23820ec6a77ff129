"""The strategy video-lavit: motion vectors, the motion codec, its tokens and its visual head."""

import pytest
import torch
import torch.nn.functional as F

from support.tiny import CAPTIONS, make_batch, model_config, with_strategy
from vtok.assembly.build import build_framework, drawn_weights
from vtok.config import ConfigError, VisualHeadConfig, VTokConfig
from vtok.motion_codec import MotionCodec, MotionTokens, codec_config, motion_vectors
from vtok.motion_codec.folder import load_codec, save_folder, stored_codebook
from vtok.motion_codec.vectors import GROUP, between_neighbours
from vtok.sampling import Sampling
from vtok.tokeniser import build_tokeniser
from vtok.visual_head import CodebookCells, build_visual_head

SMALL_CLIP = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
)
SMALL = dict(channels=16, heads=2, blocks=1, codes=32, code_dim=8)


def texture(side: int = 400) -> torch.Tensor:
    """Random blobs, (3, side, side) uint8, in which a block of 16 pixels finds itself again."""
    noise = torch.rand(1, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(0))
    return (255 * F.interpolate(noise, scale_factor=4, mode="bicubic").clamp(0, 1)).byte()[0]


def window_that_moves(count: int, x: int, y: int, side: int = 160) -> torch.Tensor:
    """A window on the texture; what it shows moves by (x, y) pixels a frame."""
    whole = texture()
    corners = [(120 - y * frame, 120 - x * frame) for frame in range(count)]
    return torch.stack([whole[:, top : top + side, left : left + side] for top, left in corners])


@pytest.mark.parametrize("x, y", [(3, 0), (0, -2), (-4, 3)])
def test_vectors_are_the_movement_in_percent_of_the_frame(x, y):
    vectors = motion_vectors(window_that_moves(15, x, y), 20, 36)
    assert vectors.shape == (14, 2, 20, 36) and vectors.dtype == torch.float32
    for frame in vectors:  # frame 12 is a key frame of the encoder, which has none of its own
        assert frame.flatten(1).median(1).values.tolist() == pytest.approx([100 * x / 160, 100 * y / 160], abs=0.02)


def test_what_stands_still_has_no_vectors_and_a_part_that_moves_has_its_own():
    still = texture()[None, :, :160, :160].repeat(6, 1, 1, 1)
    assert motion_vectors(still, 10, 10).abs().max() < 1e-6
    half = still.clone()
    half[:, :, :, 80:] = window_that_moves(6, 4, 0)[:, :, :, 80:]
    vectors = motion_vectors(half, 10, 10)[:, 0]
    assert vectors[:, :, :4].abs().median() < 0.1 and vectors[:, :, 6:].median() == pytest.approx(2.5, abs=0.02)


def test_vectors_are_a_function_of_the_frames():
    frames = window_that_moves(5, 2, 1, side=63)  # odd sizes too
    assert torch.equal(motion_vectors(frames, 20, 36), motion_vectors(frames.clone(), 20, 36))
    assert motion_vectors(frames[:1], 20, 36).shape == (0, 2, 20, 36)
    with pytest.raises(ConfigError, match="uint8"):
        motion_vectors(frames.float(), 20, 36)


def test_a_key_frame_of_the_encoder_has_the_mean_of_its_neighbours():
    fields = torch.arange(2 * GROUP + 1.0)
    fields[GROUP] = fields[2 * GROUP] = 0
    expected = [*range(1, GROUP), GROUP, *range(GROUP + 1, 2 * GROUP), 2 * GROUP - 1]
    assert between_neighbours(fields).tolist() == expected


@pytest.mark.parametrize("form, grid", [("published", (3, 5, 9)), ("budget", (4, 2, 3))])
def test_the_forms_have_their_numbers_of_codes(form, grid):
    config = codec_config(dict(form=form) | SMALL)
    codec = MotionCodec(config)
    vectors = torch.randn(2, 24, 2, 20, 36)
    codes = codec.encode(vectors)
    assert config.grid == grid and codes.shape == (2, *grid) and codec.decode(codes).shape == vectors.shape
    plain = codec_config(dict(form=form))
    assert (plain.codes, plain.code_dim) == (1024, 32)


def test_a_codec_s_folder_gives_the_same_codes(tmp_path):
    codec = MotionCodec(codec_config(SMALL)).eval()
    save_folder(codec, tmp_path / "codec")
    vectors = torch.randn(2, 24, 2, 20, 36)
    again, frozen = load_codec(tmp_path / "codec"), MotionTokens(codec.config)
    frozen.load_state_dict({name: value for name, value in codec.state_dict().items() if "decoder" not in name})
    with torch.no_grad():
        codes = codec.encode(vectors)
        assert torch.equal(again.encode(vectors), codes)
        cells = CodebookCells(stored_codebook(str(tmp_path / "codec")))
        found = cells.quantise(frozen(vectors).flatten(0, 2)).flatten()
    assert torch.equal(found, codes.flatten())


def test_a_codec_learns_and_gives_different_movements_different_codes():
    torch.manual_seed(0)
    codec = MotionCodec(codec_config(SMALL | dict(height=4, width=6, strides=[[6, 2, 3]])))
    movement = 3 * torch.randn(8, 1, 2, 1, 1).expand(8, 24, 2, 4, 6)
    optimiser = torch.optim.AdamW(codec.parameters(), lr=3e-3)
    curve = []
    for _ in range(60):
        optimiser.zero_grad()
        losses = codec.training_losses(movement)
        losses["loss"].backward()
        optimiser.step()
        curve.append({name: value.item() for name, value in losses.items()})
    assert all(parameter.grad.abs().sum() > 0 for parameter in codec.parameters())
    assert curve[-1]["loss_rec"] < 0.3 * curve[0]["loss_rec"]
    assert curve[-1]["codes_used"] >= 6 / 32  # of eight movements, with 32 codes


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(form="x"), "form is 'x'"),
        (dict(channel=3), "no setting channel"),
        (dict(channels=30), "heads should divide"),
        (dict(strides=[[5, 2, 2]]), "should divide its clip"),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        codec_config(settings)


@pytest.mark.parametrize("form, tokens", [("budget", 46), ("published", 16 + 4 * 45)])
def test_five_seconds_cost_as_many_tokens_as_the_readme_says(form, tokens):
    settings = dict(clip_config=SMALL_CLIP, codec_config=dict(form=form) | SMALL, token_dim=32)
    tokeniser = build_tokeniser(VTokConfig(strategy="video-lavit", **settings))
    assert sum(tokeniser.counts(31)) == sum(tokeniser.counts(121, fps=24)) == tokens
    frames = torch.randint(0, 256, (1, 31, 3, 32, 32), dtype=torch.uint8)
    assert tokeniser(frames).shape == (1, tokens, 32)
    places = [tokeniser.place(index) for index in range(tokens)]
    assert len(set(places)) == tokens and {place.cell for place in places} == set(range(tokeniser.num_cells))


@torch.no_grad()
def test_vectors_of_the_loader_give_the_tokens_of_the_frames(tiny_models):
    config = with_strategy(model_config(tiny_models), tiny_models, strategy="video-lavit").tokeniser
    tokeniser = build_tokeniser(config)
    clip = torch.stack([F.interpolate(one[None].float(), 64)[0].byte() for one in window_that_moves(26, 3, 1)])
    frames = torch.stack([clip, clip.flip(0)])
    vectors = torch.stack([tokeniser.vectors_of(one) for one in frames])
    given, computed = tokeniser.features(frames, [26, 10], vectors=vectors), tokeniser.features(frames, [26, 10])
    assert given.motion_counts == [5 * 6, 2 * 6] and torch.equal(given.spatial, computed.spatial)
    assert torch.equal(given.motion[0], computed.motion[0])
    # A clip's codes depend neither on its batch mates nor on the padding behind it.
    alone = tokeniser.features(frames[1:, :10])
    assert torch.equal(given.motion[1, :12], alone.motion[0]) and not given.motion[1, 12:].any()
    # Frames at four times the rate have the tokens of every fourth one.
    often = clip.repeat_interleave(4, dim=0)[None]
    assert torch.equal(tokeniser.features(often[:, :101], fps=24).motion, computed.motion[:1])
    with pytest.raises(ConfigError, match="needs 6 frames per second, got 4"):
        tokeniser.features(frames, fps=4)


def test_the_head_predicts_codes_of_the_codec(tiny_models):
    framework = build_framework(with_strategy(model_config(tiny_models), tiny_models, strategy="video-lavit")).eval()
    head, table = framework.visual_head["motion"], stored_codebook(f"{tiny_models}/motion_codec")
    hidden = torch.randn(5, framework.mllm.dim)
    with torch.no_grad():
        losses = torch.stack([head.loss(hidden, vector.expand(5, -1)) for vector in F.normalize(table, dim=-1)])
        torch.testing.assert_close(losses.neg().exp().sum(0), torch.ones(5))  # -log p of all codes
        drawn = head.sample(hidden, Sampling(), torch.Generator().manual_seed(0))
        likeliest = head.sample(hidden, Sampling(temperature=0))
    assert torch.equal(head.cells.dequantise(head.cells.quantise(drawn)), drawn)
    assert torch.equal(head.cells.quantise(likeliest).flatten(), losses.argmin(0)) and head.terms == 1
    assert framework.tokeniser.feature_scale["motion"].fixed and not framework.tokeniser.feature_scale["spatial"].fixed
    features = framework.tokeniser.features(make_batch(framework, 2, CAPTIONS[:2], [9, 7]).frames)
    stored = features.motion.bfloat16()  # precomputed
    assert torch.equal(head.cells.quantise(stored.flatten(0, 1)), head.cells.quantise(features.motion.flatten(0, 1)))


@pytest.mark.parametrize("kind", ["gmm", "mse", "flow"])
def test_other_heads_predict_the_vectors_of_codes(kind):
    cells = CodebookCells(torch.randn(16, 4))
    head = build_visual_head(VisualHeadConfig(kind=kind, width=16), 8, 4, cells)
    assert head.sample(torch.randn(3, 8)).shape == (3, 4)


def test_the_codec_stays_as_it_is_and_is_needed_untrained(tiny_models):
    framework = build_framework(with_strategy(model_config(tiny_models), tiny_models, strategy="video-lavit"))
    assert not any(p.requires_grad for p in framework.tokeniser.codec.parameters())
    assert {name.split(".")[1] for name in drawn_weights(framework)} == {"motion_encoder"}


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(key_frame_idx=2), "first frame as key frame"),
        (dict(key_frame_idx="detect"), "first frame as key frame"),
        (dict(motion_stride=2), "leave out tokeniser.motion_stride"),
        (dict(backbone="qwen2.5-vl", motion_stride=None), "another backbone"),
        (dict(codec="x", codec_config=dict(form="budget")), "remove it or tokeniser.codec"),
        (dict(strategy="training_free", codec="x"), "belong to tokeniser.strategy video-lavit"),
        (dict(strategy="vtok", codec_config=dict(form="budget")), "belong to tokeniser.strategy video-lavit"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message) as refused:
        VTokConfig(**dict(strategy="video-lavit") | settings)
    assert "\n" not in str(refused.value)


def test_a_missing_codec_is_named(tmp_path):
    with pytest.raises(ConfigError, match="tokeniser.codec: no motion codec in"):
        build_tokeniser(VTokConfig(strategy="video-lavit", clip_config=SMALL_CLIP, codec=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ConfigError, match="train_motion_codec.py writes such folders"):
        build_tokeniser(VTokConfig(strategy="video-lavit", clip_config=SMALL_CLIP, codec=str(tmp_path)))
