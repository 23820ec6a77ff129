"""Tokenisation strategies in the pipelines: planned, precomputed, tokenised, and trained on two ranks."""

import pytest
import torch

from data_tools.video.encode import encode_mp4
from pipelines import train
from pipelines.engine.loading.precomputed import pack_features, unpack_features
from pipelines.inference.tokenise import tokenise
from pipelines.metering.step import measure_step, meta_copy
from pipelines.metering.workload import typical_workload
from support.commands import called
from support.launch import checked
from support.runs import CONFIG, DS_CONFIG, log_of, make_shards, options
from support.tiny import make_batch, model_config, planned_config, with_strategy
from vtok.assembly.build import build_framework
from vtok.tokeniser import build_tokeniser

CODECS = {name: f"pipelines/configs/tiny_{name}.yaml" for name in ("video-lavit", "omnitokenizer")}
OTHERS = {
    "frames": dict(strategy="frames", sampled_frames=3),
    "none": dict(strategy="none"),
    "training_free": dict(strategy="training_free"),
    "vtok-cuts": dict(strategy="vtok-cuts", max_key_frames=2, cut_threshold=2.0),
    "previous": dict(residual_to="previous"),
    "query": dict(residual_grid=2, residual_pooling="query"),
    "video-lavit": dict(strategy="video-lavit"),
    "omnitokenizer": dict(strategy="omnitokenizer"),
}


@pytest.mark.parametrize(
    "name, tokens, least, most",
    [
        ("frames", (48, 0), 1.1, 2.0),
        ("none", (0, 0), 0.1, 0.9),
        ("training_free", (16, 8), 0.99, 1.0),
        ("vtok-cuts", (32, 8), 1.1, 1.8),
        ("previous", (16, 8), 0.999, 1.001),
        ("query", (16, 8), 0.9, 1.1),
        ("video-lavit", (16, 12), 1.0, 1.3),
        ("omnitokenizer", (16, 12), 1.0, 1.3),
    ],
)
def test_a_step_is_planned_with_its_own_tokens(tiny_models, name, tokens, least, most):
    """Against vtok's 16 + 8: training_free spares g_phi."""
    config = planned_config(tiny_models)
    usual = measure_step(*planned(config)).usage["language_model"].flops
    config.model = with_strategy(config.model, tiny_models, **OTHERS[name])
    framework, load = planned(config)
    assert load.tokens == tokens
    assert least * usual < measure_step(framework, load).usage["language_model"].flops < most * usual


def planned(config):
    framework = meta_copy(config.model, "fp32")
    return framework, typical_workload(config, framework, 2)


@pytest.mark.parametrize("name", OTHERS)
def test_stored_features_train_as_those_of_the_videos(tiny_models, name):
    framework = build_framework(with_strategy(model_config(tiny_models), tiny_models, **OTHERS[name])).eval()
    batch = make_batch(framework, 2)
    features = framework.tokeniser.features(batch.frames, batch.frame_counts)
    stored = unpack_features([pack_features(features, clip) for clip in range(2)])
    assert stored.token_counts == features.token_counts
    with torch.no_grad():
        expected, losses = framework(batch), framework(batch._replace(frames=stored))
    for loss in ("loss_under", "loss_vis_lm", "loss_dec"):
        torch.testing.assert_close(losses[loss], expected[loss], rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("name", OTHERS)
def test_videos_become_tokens(tiny_models, tmp_path, name):
    (tmp_path / "clip.mp4").write_bytes(encode_mp4(torch.randint(0, 256, (17, 64, 64, 3)).byte().numpy(), 8, 18))
    tokeniser = build_tokeniser(with_strategy(model_config(tiny_models), tiny_models, **OTHERS[name]).tokeniser)
    tensors, key_frame, _ = tokenise(tokeniser, tmp_path / "clip.mp4")
    frames = 13 if name in CODECS else 9  # at 6 and at 4 per second
    assert len(tensors["tokens"]) == sum(tokeniser.counts(frames)) and key_frame.shape == (3, 64, 64)
    times = {
        "frames": [0, 1, 2],
        "none": [],
        **dict.fromkeys(("training_free", "vtok-cuts", "previous", "query"), [step / 4 for step in range(1, 9)]),
        "video-lavit": [1, 2],
        "omnitokenizer": [4 / 6, 8 / 6, 2],
    }
    assert tensors["times"].tolist() == pytest.approx(times[name])


RUN_IN_CI = ("vtok-cuts", "video-lavit")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name if name in RUN_IN_CI else pytest.param(name, marks=pytest.mark.long)
        for name in OTHERS
        if name not in ("previous", "query")
    ],
)
def test_two_ranks_train_as_one_does(ranks, tmp_path, name):
    shards = make_shards(tmp_path)
    logs = []
    for run in (called, ranks.run):
        output = tmp_path / str(len(logs))
        config = CODECS.get(name, CONFIG)
        command = ("--config", config, "--ds_config", DS_CONFIG, *options(shards, output, 3, 3))
        command += tuple(f"--model.tokeniser.{key}={value}" for key, value in OTHERS[name].items())
        checked(run(train.main, *command))
        logs.append(log_of(output))
    for one, two in zip(*logs, strict=True):
        for loss in ("loss_under", "loss_vis_lm", "loss_dec", "grad_norm"):
            assert two[loss] == pytest.approx(one[loss], rel=1e-3, abs=1e-6), (one["step"], loss)
