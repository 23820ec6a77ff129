"""Qwen2.5-VL through every command: trained, resumed, asked, stored, exported; what it does not do is one line."""

import json
import math

import pytest
import torch
import yaml
from transformers import Qwen2_5_VLForConditionalGeneration

from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from pipelines import export, generate, plan, precompute, train, understand
from pipelines.cli.config_files import PRESETS, save_config
from pipelines.cli.parsing import parse_run_arguments
from support.commands import called
from support.launch import assert_user_error, checked
from support.real_clips import CLIPS, needs_shared
from support.runs import DS_CONFIG, log_of, make_shards
from support.tiny import CAPTIONS, model_config, qwen_config
from vtok.assembly.tiny import write_tiny_models
from vtok.config import ConfigError

TINY = ("--config", "pipelines/configs/tiny_qwen2.5-vl.yaml")
TRAIN = (train.main, *TINY, "--ds_config", DS_CONFIG)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    render_clips(folder, 1, seed=3)
    return folder / "000.mp4"


def test_the_published_model_is_planned(capsys):
    """Five seconds are 144 + 10 tokens; language model and tower, and no decoder."""
    plan.main(["--config", str(PRESETS / "qwen2.5-vl_7b.yaml"), "--gpus", "16", "--json"])
    planned = json.loads(capsys.readouterr().out)
    parts = {part["part"]: part for part in planned["parameters"]}
    assert list(parts) == ["language_model", "phi_vis + P", "g_phi", "visual_head", "feature_extractor"]
    assert parts["language_model"]["trained"] and not parts["feature_extractor"]["trained"]
    flops = {part: figures["model"] for part, figures in planned["flops_per_sample"].items()}
    linear, tokens = 7_615_616_512 - 152064 * 3584 * 2, 15 + 144 + 10 + 10 + 65
    assert flops["language_model"] == pytest.approx(6 * linear * tokens, rel=0.03)
    patches, tower = 11 * 24 * 24, 32 * (4 * 1280 * 1280 + 3 * 1280 * 3420)
    assert flops["feature_extractor"] == pytest.approx(2 * tower * patches, rel=0.15)
    assert not {"diffusion_transformer", "autoencoder"} & (flops.keys() | planned["gpu_memory"]["phases"].keys())
    assert planned["gpu_memory"]["fits"]


def test_its_demo_and_its_latents_are_refused(tmp_path, capsys):
    with pytest.raises(ConfigError, match="the demo ends with a video"):
        parse_run_arguments([*TINY, "--demo.clips", "4"])
    with pytest.raises(ConfigError, match="set both or neither"):
        parse_run_arguments(["--config", str(PRESETS / "tiny.yaml"), "--model.mllm.kind", "qwen2.5-vl"])
    with pytest.raises(SystemExit) as end:
        precompute.main([str(tmp_path), "--output", "x", *TINY, "--data.window", "centred", "--latents"])
    error = capsys.readouterr().err
    assert end.value.code == 2 and "leave out --latents" in error and error.count("\n") == 1


@pytest.mark.parametrize("kind", ["llava-next", "qwen2.5-vl"])
def test_an_untrained_model_answers(kind, clip, tmp_path, capsys):
    """A configuration and published weights are enough; where g_phi is random it is said what to do."""
    write_tiny_models(tmp_path, CAPTIONS, mllm=kind)
    config = parse_run_arguments(["--config", str(PRESETS / "tiny.yaml")]).config
    config.tiny_models, config.model = False, {"llava-next": model_config, "qwen2.5-vl": qwen_config}[kind](tmp_path)
    asked = ["--config", str(tmp_path / "run.yaml"), "--video", str(clip), "--json", "--max_new_tokens", "8"]
    for strategy, seed in (("training_free", 0), ("training_free", 1)):
        config.model.tokeniser.strategy, config.seed = strategy, seed
        save_config(config, tmp_path / "run.yaml")
        understand.main(asked)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert answers[0] == answers[1] and answers[0]["step"] == 0 and isinstance(answers[0]["answer"], str)

    config.model.tokeniser.strategy = "vtok"
    save_config(config, tmp_path / "run.yaml")
    if kind == "qwen2.5-vl":  # begins as the training-free one
        understand.main(asked)
        assert json.loads(capsys.readouterr().out) == answers[0]
        return
    with pytest.raises(SystemExit) as end:
        understand.main(asked)
    error = capsys.readouterr().err
    assert end.value.code == 2 and "set tokeniser.strategy to training_free" in error and error.count("\n") == 1


@pytest.mark.long
def test_stored_features_train_as_the_videos_do(tmp_path):
    shards = make_shards(tmp_path)
    settings = ("--data.window", "centred", "--data.seconds", 1)
    checked(called(precompute.main, shards, "--output", tmp_path / "ready", *TINY, *settings))
    short = (*settings, "--train.max_steps", 3, "--train.global_batch_size", 4, "--train.lr", 1e-4)
    checks = ("--validation.every", 3, "--validation.samples", 4, "--validation.captions", 1)
    logs = []
    for data in (shards, tmp_path / "ready"):
        output = tmp_path / f"on_{data.name}"
        named = ("--data.shards", data, "--validation.shards", data, "--output", output)
        checked(called(*TRAIN, *short, *checks, *named))
        logs.append(log_of(output))
        assert (output / "validation.jsonl").read_text().count("\n") == 1
    for ours, theirs in zip(*logs, strict=True):
        assert ours["batch_digest"] == theirs["batch_digest"]
        assert ours["loss_under"] == pytest.approx(theirs["loss_under"], rel=1e-3)


@pytest.mark.long
@needs_shared
def test_it_trains_on_two_ranks_on_real_clips_resumes_and_answers(ranks, tmp_path):
    build_shards(CLIPS, tmp_path / "shards", progress=False)
    output, video = tmp_path / "out", CLIPS / "coffee.mp4"
    data = ("--data.shards", tmp_path / "shards", "--output", output, "--resume", "auto")
    checks = ("--validation.shards", tmp_path / "shards", "--validation.every", 10, "--validation.samples", 4)
    for steps in (10, 20):
        options = ("--train.max_steps", steps, "--checkpoint.every", 10)
        checked(ranks.run(*TRAIN, *data, *checks, *options))
    log = log_of(output)
    assert [line["step"] for line in log] == list(range(1, 21))
    assert all(math.isfinite(line["loss_under"]) and line["loss_vis_lm"] == line["loss_dec"] == 0 for line in log)
    first, last = (sum(line["loss"] for line in part) / 5 for part in (log[:5], log[-5:]))
    assert last < 0.8 * first
    assert (output / "validation.jsonl").read_text().count("\n") == 2

    asked = ("--checkpoint", output, "--video", video, "--question", "Describe this video.", "--json")
    said = json.loads(checked(called(understand.main, *asked)).stdout)
    assert said["answer"] and said["step"] == 20
    made = ("--checkpoint", output, "--prompt", "Ducks swim.", "--output", tmp_path / "x.mp4")
    assert_user_error(called(generate.main, *made), "mllm.kind qwen2.5-vl understands only")
    assert not (tmp_path / "x.mp4").exists()

    checked(called(export.main, "--checkpoint", output, "--output", tmp_path / "model", "--dtype", "fp32"))
    exported = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "model")
    begun = Qwen2_5_VLForConditionalGeneration.from_pretrained(output / "models/qwen")
    changed = {name for name, value in exported.named_parameters() if not torch.equal(value, begun.get_parameter(name))}
    assert len(changed) > 40 and not any("visual" in name for name in changed)
    assert yaml.safe_load((output / "config.yaml").read_text())["model"]["mllm"]["kind"] == "qwen2.5-vl"
