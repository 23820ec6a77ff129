"""Strategy ``vtok-cuts``: a further key frame at a cut."""

from dataclasses import replace

import pytest
import torch

from data_tools.video.encode import encode_mp4
from pipelines.engine.loading.precomputed import pack_features, unpack_features
from pipelines.inference.tokenise import picture_of, tokenise
from pipelines.metering.step import measure_step, meta_copy
from pipelines.metering.workload import typical_workload
from support.tiny import CAPTIONS, make_batch, model_config, part, planned_config, with_strategy
from vtok.assembly.build import build_framework
from vtok.config import VTokConfig
from vtok.framework import VTokFramework
from vtok.generation import generate
from vtok.tokeniser import Place, build_tokeniser
from vtok.tokeniser.cuts import changes, cut_steps
from vtok.understanding import understand, video_embeddings

SMALL_CLIP = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
)
CUTS = dict(strategy="vtok-cuts", max_key_frames=2, cut_threshold=1e-4)  # random weights: any change counts


def small(**changes) -> VTokConfig:
    return VTokConfig(**dict(clip_config=SMALL_CLIP, token_dim=32, motion_stride=1, spatial_grid_size=2) | changes)


def shots(*lengths: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    """A video (T, 3, size, size) ``uint8`` of still shots of these lengths."""
    draws = torch.Generator().manual_seed(seed)
    return torch.cat([
        torch.randint(256, (1, 3, size, size), dtype=torch.uint8, generator=draws).expand(length, -1, -1, -1)
        for length in lengths
    ])  # fmt: skip


@pytest.fixture
def framework(tiny_models) -> VTokFramework:
    torch.manual_seed(0)
    framework = build_framework(with_strategy(model_config(tiny_models), tiny_models, **CUTS)).train()
    for positions in framework.projection.positions.parameters():
        torch.nn.init.normal_(positions)
    return framework


def cut_batch(framework):
    """Two clips of 9 frames: with a cut at frame 4, and without one."""
    clips = torch.stack([shots(4, 5, size=64), shots(9, size=64, seed=1)])
    return make_batch(framework, 2, CAPTIONS[:2], [9, 9])._replace(frames=clips)


def test_cuts_are_the_largest_changes_over_the_threshold():
    assert cut_steps([0.1, 0.6, 0.1, 0.9, 0.7], 0.5, most=2) == [3, 4]
    assert cut_steps([0.1, 0.6, 0.1, 0.9, 0.7], 0.5, most=9) == [1, 3, 4]
    assert cut_steps([0.6, 0.6, 0.6], 0.6, most=2) == [0, 1]
    assert cut_steps([0.1], 0.5, most=1) == cut_steps([], 0.5, most=1) == []


def test_a_change_lies_between_equal_and_opposite_features():
    one = torch.randn(1, 8, 8, 16)
    assert changes(one, 3 * one) == pytest.approx(0, abs=1e-6) and changes(one, -one) == pytest.approx(2, abs=1e-6)
    right_angle = torch.zeros(1, 4, 4, 2), torch.zeros(1, 4, 4, 2)
    right_angle[0][..., 0] = right_angle[1][..., 1] = 1
    assert changes(*right_angle) == pytest.approx(1)


def test_without_a_cut_features_and_tokens_are_those_of_vtok():
    usual = build_tokeniser(small())
    tokeniser = build_tokeniser(small(**CUTS), usual.feature_extractor)
    tokeniser.load_state_dict(usual.state_dict())
    frames = torch.stack([shots(5), shots(5, seed=1)])
    found, expected = (each.features(frames, [5, 3]) for each in (tokeniser, usual))
    assert found.token_counts == expected.token_counts == [4 + 4, 4 + 2] and found.gaps == [4, 4]
    assert torch.equal(found.spatial[:, :4], expected.spatial) and torch.equal(found.motion, expected.motion)
    tokens = tokeniser.encode(found)
    assert torch.equal(torch.cat([tokens[:, :4], tokens[:, 8:]], 1), usual.encode(expected))
    assert tokeniser.counts(5) == usual.counts(5) and tokeniser.most(5) == (8, 4)


def test_a_cut_gives_a_second_key_frame_and_the_steps_behind_it_refer_to_it():
    tokeniser = build_tokeniser(small(**CUTS))
    video = shots(3, 4)[None]
    features, encoded = tokeniser.features(video), tokeniser.feature_extractor(video[0])
    pool = tokeniser.spatial_encoder.pool
    torch.testing.assert_close(features.spatial[0], pool(encoded[[0, 3]]).flatten(0, 1))
    assert features.token_counts == [2 * 4 + 6] and features.gaps == [0]
    motion = features.motion[0]
    torch.testing.assert_close(motion[2], (encoded[3] - encoded[0]).mean((0, 1)))  # tells when the cut is
    assert motion[2].any() and not motion[[0, 1, 3, 4, 5]].any()
    previous = build_tokeniser(small(**CUTS, residual_to="previous"), tokeniser.feature_extractor).features(video)
    assert torch.equal(previous.motion, features.motion) and torch.equal(previous.spatial, features.spatial)


def test_long_videos_have_as_many_key_frames_as_shots_at_most_those_allowed():
    video, counts = shots(2, 3, 2, 4)[None], []
    for most in (2, 3, 4, 6):
        features = build_tokeniser(small(**CUTS | dict(max_key_frames=most))).features(video)
        counts.append(features.token_counts[0])
    assert counts == [2 * 4 + 10, 3 * 4 + 10, 4 * 4 + 10, 4 * 4 + 10]


def test_places_are_the_same_in_every_clip():
    tokeniser = build_tokeniser(small(**CUTS))
    assert tokeniser.place(3) == Place("spatial", cell=3) and tokeniser.place(7) == Place("spatial", cell=7)
    assert tokeniser.place(8) == Place("motion", time=0) and tokeniser.num_cells == 8
    assert tokeniser.sampled(6) == [0, 1, 2, 3, 8, 9] and tokeniser.sampled(3) == [0, 1, 2]


def test_a_clip_s_losses_do_not_depend_on_whether_its_batch_mates_have_a_cut(framework):
    batch = cut_batch(framework)
    assert framework.tokeniser.features(batch.frames, batch.frame_counts).token_counts == [2 * 16 + 8, 16 + 8]
    together = framework(batch, reduce=False)
    for name in ("loss_under", "loss_vis_lm", "loss_dec"):
        alone = torch.cat([framework(part(batch, [clip]), reduce=False)[name] for clip in (0, 1)])
        torch.testing.assert_close(together[name], alone, atol=1e-5, rtol=1e-5)


def test_every_trained_parameter_gets_a_gradient(framework):
    framework(cut_batch(framework))["loss"].backward()
    assert not [n for n, p in framework.named_parameters() if p.requires_grad and p.grad is None]
    assert framework.projection.positions.spatial.weight.grad[16:].any()  # the cells of the second key frame


@torch.no_grad()
def test_the_losses_of_a_clip_without_a_cut_are_those_of_vtok(framework, tiny_models):
    """With the same weights; P has more rows, which such a clip does not use."""
    usual = build_framework(model_config(tiny_models)).train()
    own = framework.state_dict()
    own["projection.positions.spatial.weight"] = own["projection.positions.spatial.weight"][:16]
    usual.load_state_dict(own)
    batch = part(cut_batch(framework), [1])
    expected = usual(batch)
    for name, loss in framework(batch).items():
        torch.testing.assert_close(loss, expected[name])


@torch.no_grad()
def test_stored_features_keep_their_own_tokens_only(framework):
    batch = cut_batch(framework)
    features = framework.tokeniser.features(batch.frames, batch.frame_counts)
    for clips in ([0, 1], [1], [0]):
        stored = unpack_features([pack_features(features, clip) for clip in clips])
        assert stored.spatial.shape[1] == max(features.of("spatial")[1][clip] for clip in clips)
        found, expected = framework(part(batch, clips)._replace(frames=stored)), framework(part(batch, clips))
        for loss in ("loss_under", "loss_vis_lm", "loss_dec"):
            torch.testing.assert_close(found[loss], expected[loss], rtol=2e-2, atol=1e-3)


@torch.no_grad()
def test_a_video_with_a_cut_is_understood_and_decoded_from_all_its_tokens(framework):
    framework.eval()
    video = shots(4, 5, size=64)
    features = framework.tokeniser.features(video[None])
    assert video_embeddings(framework, video).shape[1] == framework.embedded(features).shape[1] == 2 * 16 + 8
    assert isinstance(understand(framework, video, "What is it?", max_new_tokens=4), str)
    kept = unpack_features([pack_features(features, 0)])
    assert isinstance(understand(framework, kept, "What is it?", max_new_tokens=4), str)
    again = generate(framework, "A circle", 1.25, 8, steps=2, features=features)
    assert again.shape == (10, 3, 32, 32)


def test_a_plan_counts_the_most_key_frames(tiny_models):
    config = planned_config(tiny_models)
    flops = []
    for settings in ({}, CUTS, CUTS | dict(max_key_frames=3)):
        model = with_strategy(config.model, tiny_models, **settings)
        own = replace(config, model=model)
        load = typical_workload(own, copy := meta_copy(model, "fp32"), 2)
        flops.append((sum(load.tokens), measure_step(copy, load).usage["language_model"].flops))
    assert [tokens for tokens, _ in flops] == [24, 40, 56]
    assert flops[0][1] < flops[1][1] < flops[2][1]


def test_the_tokens_of_a_cut_video_are_written_with_the_time_of_the_cut(tiny_models, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(encode_mp4(shots(8, 9, size=64).permute(0, 2, 3, 1).numpy(), 8, 18))
    settings = CUTS | dict(cut_threshold=0.001)  # more than the encoding changes
    tokeniser = build_tokeniser(with_strategy(model_config(tiny_models), tiny_models, **settings).tokeniser)
    with torch.no_grad():
        tensors, key_frame, key = tokenise(tokeniser, tmp_path / "clip.mp4")
    assert tensors["tokens"].shape == (2 * 16 + 8, 64) and tensors["spatial"].shape == (32, 64)
    assert tensors["cuts"].tolist() == [1.0] and key == 0
    picture = picture_of(tokeniser, tmp_path / "clip.mp4", tensors, key_frame)
    assert picture.size == (3 * 336, 336)
