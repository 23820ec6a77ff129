"""Tokenisation strategies: tokens, places, gradients, understanding and generation of each."""

from dataclasses import replace

import pytest
import torch

from support.tiny import CAPTIONS, imagined, make_batch, model_config, part, with_strategy
from vtok import visual_sampling
from vtok.assembly.build import build_framework
from vtok.assembly.pretrained import from_pretrained, save_pretrained
from vtok.config import ConfigError, LossConfig, VTokConfig
from vtok.feature_extractor import build_feature_extractor
from vtok.framework import VTokFramework
from vtok.generation import generate
from vtok.tokeniser import Place, build_tokeniser
from vtok.tokeniser.layout import evenly_spaced
from vtok.understanding import understand, video_embeddings

STRATEGIES = {
    "vtok": {},
    "residual grid": dict(residual_grid=2),
    "previous": dict(residual_to="previous"),
    "query": dict(residual_grid=2, residual_pooling="query"),
    "vtok-cuts": dict(strategy="vtok-cuts", max_key_frames=2, cut_threshold=2.0),
    "frames": dict(strategy="frames", sampled_frames=3),
    "none": dict(strategy="none"),
    "training_free": dict(strategy="training_free"),
    "video-lavit": dict(strategy="video-lavit"),
    "omnitokenizer": dict(strategy="omnitokenizer"),
}
# Of 9 frames.
TOKENS = {
    "vtok": 24, "residual grid": 24, "previous": 24, "query": 24, "vtok-cuts": 24, "frames": 48, "none": 0,
    "training_free": 24, "video-lavit": 28, "omnitokenizer": 24,
}  # fmt: skip

# Five seconds as the paper counts them: 4 x 4 cells, 6 motion tokens per second, 120 frames at 24 per second.
PAPER = {
    "vtok": (dict(), 46),
    "residual grid 4": (dict(residual_grid=4), 46),
    "training_free": (dict(strategy="training_free", token_dim=32), 46),
    "frames k = 4": (dict(strategy="frames", sampled_frames=4), 64),
    "frames k = 8": (dict(strategy="frames", sampled_frames=8), 128),
    "none": (dict(strategy="none"), 0),
}
SMALL_CLIP = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
)


def config(tiny_models, name, **changes):
    return with_strategy(model_config(tiny_models, **changes), tiny_models, **STRATEGIES[name])


@pytest.fixture(params=STRATEGIES)
def strategy(request, tiny_models) -> tuple[str, VTokFramework]:
    torch.manual_seed(0)
    framework = build_framework(config(tiny_models, request.param)).train()
    for positions in framework.projection.positions.parameters():
        torch.nn.init.normal_(positions)
    return request.param, framework


@pytest.mark.parametrize("name", PAPER)
def test_tokens_of_five_seconds_are_the_papers(name):
    changes, tokens = PAPER[name]
    settings = dict(clip_config=SMALL_CLIP, fps=24, motion_tokens_per_second=6, token_dim=32) | changes
    tokeniser = build_tokeniser(VTokConfig(**settings))
    assert sum(tokeniser.counts(120)) == tokens
    assert tokeniser(torch.randn(1, 120, 3, 32, 32)).shape == (1, tokens, 32)
    assert [tokeniser.place(index).kind for index in range(tokens)].count("spatial") == tokeniser.counts(120).spatial


def test_frames_are_evenly_spaced_from_the_first_to_the_last():
    assert evenly_spaced(120, 4) == [0, 40, 79, 119]
    assert evenly_spaced(9, 3) == [0, 4, 8] and evenly_spaced(9, 1) == [0] and evenly_spaced(1, 3) == [0, 0, 0]
    assert len(set(evenly_spaced(8, 8))) == 8


def test_frames_are_tokens_of_each_frame_at_its_cell_and_time(tiny_models):
    framework = build_framework(config(tiny_models, "frames"))
    tokeniser, batch = framework.tokeniser, make_batch(framework, 1)
    features = tokeniser.features(batch.frames)
    expected = tokeniser.spatial_encoder.pool(tokeniser.feature_extractor(batch.frames[0, [0, 4, 8]]))
    torch.testing.assert_close(features.spatial[0], expected.flatten(0, 1))
    assert tokeniser.place(0) == Place("spatial", 0, 0) and tokeniser.place(37) == Place("spatial", 5, 2)
    positions = framework.projection.positions
    for part_ in positions.parameters():
        torch.nn.init.normal_(part_)
    table = positions(0, 48, torch.device("cpu"))
    wanted = positions.modality.weight[0] + positions.spatial.weight[5] + positions.temporal.weight[2]
    torch.testing.assert_close(table[37], wanted)
    torch.testing.assert_close(positions(37, 38, torch.device("cpu"))[0], wanted)


def test_training_free_tokens_are_mean_features_without_a_new_weight():
    settings = dict(clip_config=SMALL_CLIP, motion_stride=2, spatial_grid_size=2)
    tokeniser = build_tokeniser(VTokConfig(strategy="training_free", token_dim=32, **settings))
    own = [name for name, _ in tokeniser.named_parameters() if not name.startswith("feature_extractor.")]
    assert own == []
    frames = torch.randn(1, 5, 3, 32, 32)
    tokens, encoded = tokeniser(frames)[0], tokeniser.feature_extractor(frames[0])
    torch.testing.assert_close(tokens[4:], encoded[[2, 4]].mean((1, 2)), atol=1e-6, rtol=1e-5)
    with pytest.raises(ConfigError, match="token_dim to the backbone's 32"):
        build_tokeniser(VTokConfig(strategy="training_free", token_dim=48, **settings))


def test_g_phi_can_be_matched_in_parameters_across_residual_grids():
    """A hidden layer of 540 makes the global pool's g_phi as large as the 4 x 4 grid's, at width 64."""
    clip = SMALL_CLIP | dict(hidden_size=64)
    settings = dict(clip_config=clip, token_dim=64)
    extractor = build_feature_extractor(VTokConfig(**settings))

    def size(**changes):
        encoder = build_tokeniser(VTokConfig(**settings, **changes), extractor).motion_encoder
        return sum(p.numel() for p in encoder.parameters())

    assert size(residual_grid=1, motion_hidden_dim=540) == pytest.approx(size(residual_grid=4), rel=0.002)
    assert size(residual_grid=1) < 0.2 * size(residual_grid=4)


def test_settings_that_do_not_fit_a_strategy_are_refused():
    for wrong in (dict(strategy="frames"), dict(sampled_frames=4), dict(strategy="frames", sampled_frames=0)):
        with pytest.raises(ConfigError, match="sampled_frames"):
            VTokConfig(**wrong)
    for wrong, said in (
        (dict(residual_to="next"), "residual_to is 'next': choose key or previous"),
        (dict(strategy="training_free", residual_to="previous"), "residual_to previous belongs to"),
        (dict(residual_pooling="query"), "set tokeniser.residual_grid to 2 or more"),
        (dict(max_key_frames=2), "max_key_frames, at least 2, belongs to"),
        (dict(strategy="vtok-cuts"), "max_key_frames, at least 2, belongs to"),
        (dict(strategy="vtok-cuts", max_key_frames=2, cut_threshold=0), "cut_threshold must lie in 0..2"),
        (dict(strategy="vtok-cuts", max_key_frames=2, key_frame_idx=3), "leave tokeniser.key_frame_idx at 0"),
        (dict(strategy="vtok-cuts", max_key_frames=2, backbone="qwen2.5-vl"), "no places in Qwen2.5-VL's positions"),
    ):
        with pytest.raises(ConfigError, match=said):
            VTokConfig(**wrong)
    query = dict(clip_config=SMALL_CLIP, residual_grid=2, residual_pooling="query", token_dim=32, motion_hidden_dim=20)
    with pytest.raises(ConfigError, match="8 heads, which do not divide the width 20"):
        build_tokeniser(VTokConfig(**query))


@pytest.mark.parametrize("frame_counts", [[9, 4], [1, 1]])
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_trainable_parameter_gets_a_gradient_and_every_loss_counts(tiny_models, name, frame_counts):
    framework = build_framework(config(tiny_models, name)).train()
    batch = make_batch(framework, 2, CAPTIONS[:2], frame_counts)
    losses = framework(batch)
    losses["loss"].backward()
    assert losses["loss_under"] > 0 and losses["loss_dec"] > 0
    assert (losses["loss_vis_lm"] == 0) == (name == "none")
    missing = [n for n, p in framework.named_parameters() if p.requires_grad and p.grad is None]
    frozen = [n for n, p in framework.named_parameters() if not p.requires_grad and p.grad is not None]
    assert not missing and not frozen
    if name != "none" and frame_counts != [1, 1]:
        assert all(p.grad.any() for p in framework.projection.parameters() if p.requires_grad)


def test_a_clip_s_losses_do_not_depend_on_its_batch_mates(strategy):
    _, framework = strategy
    batch = make_batch(framework)
    together = framework(batch, reduce=False)
    for name in ("loss_under", "loss_vis_lm", "loss_dec"):
        alone = torch.cat([framework(part(batch, [clip]), reduce=False)[name] for clip in range(4)])
        torch.testing.assert_close(together[name], alone, atol=1e-5, rtol=1e-5)


def test_a_few_steps_learn(strategy):
    name, framework = strategy
    batch = make_batch(framework, 2)
    optimiser = torch.optim.AdamW([p for p in framework.parameters() if p.requires_grad], lr=1e-3)
    curve = []
    for _ in range(8):
        optimiser.zero_grad()
        losses = framework(batch)
        losses["loss"].backward()
        optimiser.step()
        curve.append(losses)
    for loss in ("loss_under", "loss_vis_lm") if name != "none" else ("loss_under",):
        assert curve[-1][loss] < curve[0][loss] - 0.1


@torch.no_grad()
def test_no_strategy_sees_a_later_token_or_another_clip(strategy):
    """Change the last frame (for none: every frame): tokens before it, and their losses, stay."""
    name, framework = strategy
    batch = make_batch(framework, 1)
    changed = batch.frames.clone()
    changed[:, -1] = 255 - changed[:, -1]
    before, after = (framework.embedded(framework.tokeniser.features(frames))[0] for frames in (batch.frames, changed))
    differs = (before != after).any(-1).tolist()
    last = {"frames": 16, "none": 0}.get(name, 1)
    if name == "video-lavit":  # its codec sees 24 frames at once, as the published one does
        assert not any(differs[:16])
    elif name == "omnitokenizer":  # see Surroundings: the published convolution over time mixes frames
        assert any(differs[-4:])
    else:
        assert differs == [False] * (TOKENS[name] - last) + [True] * last
    if name == "none":
        losses = framework(batch), framework(batch._replace(frames=255 - batch.frames))
        assert losses[0]["loss"] == losses[1]["loss"]


@torch.no_grad()
def test_sampled_tokens_condition_the_decoder_as_real_ones_do(strategy, monkeypatch):
    """The cached run's own tokens through one uncached pass give the same rows: prompt, then every token."""
    name, framework = strategy
    framework.eval()
    drawn, draw = [], visual_sampling.token_of
    monkeypatch.setattr(visual_sampling, "token_of", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    prompt, count = "A small red circle", sum(framework.tokeniser.counts(9))
    cached = imagined(framework, prompt, count, generator=torch.Generator().manual_seed(0))
    assert len(drawn) == count == TOKENS[name]
    rows = framework.mllm.embed(torch.tensor([framework.text.prompt(prompt)]))
    if drawn:
        places = framework.tokeniser.sampled(count)
        tokens = torch.zeros(1, places[-1] + 1, drawn[0].shape[-1])
        tokens[:, places] = torch.stack(drawn, dim=1)
        rows = torch.cat([rows, framework.projection(tokens)[:, places]], dim=1)
    whole = framework.mllm(rows).conditioning[:, framework.text.crop_start :]
    torch.testing.assert_close(cached.rows, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_strategy_generates_and_understands(strategy):
    name, framework = strategy
    framework.eval()
    videos = [
        generate(framework, "A red circle", 1.25, 8, steps=2, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert videos[0].shape == (10, 3, 32, 32) and torch.equal(videos[0], videos[1])
    assert not torch.equal(videos[0], videos[2])
    frames = make_batch(framework).frames[0]
    answers = [understand(framework, each, "What is it?", max_new_tokens=8) for each in (frames, 255 - frames)]
    assert (answers[0] == answers[1]) if name == "none" else isinstance(answers[0], str)
    parts = video_embeddings(framework, frames, key_frame_every=1.0)
    parts_of = {"vtok": 3 * 16 + 3 + 3, "frames": 3 * 48, "none": 0, "video-lavit": 2 * 16 + 6 + 6}
    parts_of["omnitokenizer"] = 2 * 16 + 2 * 4 + 4
    assert parts.shape[1] == parts_of.get(name, parts_of["vtok"])


def test_a_strategy_survives_its_folder(strategy, tmp_path):
    name, framework = strategy
    framework.eval()
    save_pretrained(framework, tmp_path / "model")
    again = from_pretrained(tmp_path / "model").eval()
    assert again.config.tokeniser == replace(framework.config.tokeniser, weights=again.config.tokeniser.weights)
    batch = make_batch(framework, 2)
    with torch.no_grad():
        assert torch.equal(framework(batch)["loss"], again(batch)["loss"])


def test_without_visual_tokens_only_the_language_model_trains(tiny_models):
    framework = build_framework(config(tiny_models, "none", loss=LossConfig()))
    assert {n.split(".")[0] for n, p in framework.named_parameters() if p.requires_grad} == {"mllm"}
