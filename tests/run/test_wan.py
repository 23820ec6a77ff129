"""LLaVA with Wan as the decoder through the pipelines: trained, resumed, asked, and made to show something."""

import json
import math

import pytest
from safetensors import safe_open

from data_tools.packing import build_shards
from data_tools.video.decode import validate
from pipelines import generate, plan, train, understand
from pipelines.cli.config_files import PRESETS
from support.commands import called
from support.launch import assert_user_error, checked
from support.real_clips import CLIPS, needs_shared
from support.runs import CONFIG, DS_CONFIG, log_of, make_shards, options
from vtok.weights import content_hash, open_file

TRAIN = (train.main, "--config", CONFIG, "--ds_config", DS_CONFIG)
WAN = ("--model.decoder.kind", "wan", "--model.decoder.adapter_dim", "64")
LOSSES = ("loss_under", "loss_vis_lm", "loss_dec")


def adapter_shares(output, step):
    """Hashes of the slices of the adapter's weights in a checkpoint."""
    files = sorted((output / "checkpoints" / f"step_{step:08d}").glob("rank_*.safetensors"))
    return [
        content_hash(open_file(file)[key])
        for file in files
        for key in sorted(safe_open(file, "pt").keys())
        if key.startswith("weights/decoder.adapter.")
    ]


@pytest.mark.long
@needs_shared
def test_two_ranks_train_on_real_clips_resume_answer_and_generate(ranks, tmp_path):
    build_shards(CLIPS, tmp_path / "shards", progress=False)
    output = tmp_path / "out"
    data = ("--data.shards", tmp_path / "shards", "--output", output, "--resume", "auto")
    for steps in (10, 20):
        checked(ranks.run(*TRAIN, *WAN, *data, "--train.max_steps", steps))
    log = log_of(output)
    assert [line["step"] for line in log] == list(range(1, 21))
    assert all(math.isfinite(line[name]) for line in log for name in LOSSES) and all(line["loss_dec"] for line in log)
    first, last = (sum(line["loss"] for line in part) / 5 for part in (log[:5], log[-5:]))
    assert last < first
    assert len(adapter_shares(output, 10)) >= 4 and adapter_shares(output, 10) != adapter_shares(output, 20)
    stored = {
        key
        for file in output.glob("checkpoints/step_00000020/rank_*.safetensors")
        for key in safe_open(file, "pt").keys()
    }
    assert not any(part in key for key in stored for part in (".transformer.", ".vae.", ".text_encoder."))

    asked = ("--checkpoint", output, "--video", CLIPS / "coffee.mp4", "--question", "Describe this video.", "--json")
    assert json.loads(checked(called(understand.main, *asked)).stdout)["answer"]
    shown = ("--checkpoint", output, "--prompt", "Ducks swim.", "--seconds", 2, "--fps", 8, "--steps", 3, "--ema")
    checked(called(generate.main, *shown, "--output", tmp_path / "x.mp4"))
    assert validate(tmp_path / "x.mp4").frames == 16


@pytest.mark.long
def test_the_experts_take_turns_in_one_run(ranks, tmp_path):
    shards, output = make_shards(tmp_path), tmp_path / "out"
    for steps, expert in ((3, "high_noise"), (6, "low_noise"), (9, "high_noise")):
        told = options(shards, output, steps, 3)
        checked(ranks.run(*TRAIN, *WAN, "--model.decoder.expert", expert, *told))
    assert [line["step"] for line in log_of(output)] == list(range(1, 10))
    assert len({tuple(adapter_shares(output, step)) for step in (6, 9)}) == 2
    shown = ("--checkpoint", output, "--prompt", "A red circle.", "--seconds", 1, "--fps", 8, "--steps", 4)
    checked(called(generate.main, *shown, "--output", tmp_path / "x.mp4"))
    assert validate(tmp_path / "x.mp4").frames == 8


@pytest.mark.long
def test_two_ranks_train_as_one_does_with_l_dec_every_second_step(ranks, tmp_path):
    shards = make_shards(tmp_path)
    logs = []
    for run in (called, ranks.run):
        output = tmp_path / str(len(logs))
        command = (*TRAIN, *WAN, "--model.loss.dec_every", 2, *options(shards, output, 4, 4))
        checked(run(*command))
        logs.append(log_of(output))
    for one, two in zip(*logs, strict=True):
        assert (one["loss_dec"] is None) == (two["loss_dec"] is None) == (one["step"] % 2 == 0)
        for loss in ("loss_under", "loss_vis_lm", "grad_norm", *(["loss_dec"] if one["step"] % 2 else [])):
            assert two[loss] == pytest.approx(one[loss], rel=1e-3, abs=1e-6), (one["step"], loss)


def test_videos_in_validation_are_refused_where_they_take_both_experts(tmp_path):
    shards = make_shards(tmp_path)
    told = (*options(shards, tmp_path / "out", 1, 1), "--validation.shards", shards, "--data.workers", 0)
    result = called(*TRAIN, *WAN, "--model.decoder.expert", "high_noise", *told)
    assert_user_error(result, "both experts", "set validation.videos to 0")
    assert not (tmp_path / "out/config.yaml").exists()


@pytest.mark.parametrize("name", [pytest.param("t2v_a14b", marks=pytest.mark.slow), "ti2v_5b"])
def test_the_presets_can_be_planned(capsys, name):
    plan.main(["--config", str(PRESETS / f"llava_next_8b_wan2.2_{name}.yaml"), "--gpus", "16", "--json"])
    figures = json.loads(capsys.readouterr().out)
    counted = {part["part"]: part for part in figures["parameters"]}
    assert counted["adapter"]["trained"] and not counted["diffusion_transformer"]["trained"]
    assert figures["flops_per_sample"]["diffusion_transformer"]["model"] > 1e15
    kept = figures["gpu_memory"]["kept"]
    assert kept["frozen text_encoder"] == pytest.approx(2 * 5.68e9 / 16, rel=0.01)
    assert kept["frozen autoencoder"] == pytest.approx(4 * counted["autoencoder"]["parameters"] / 16, rel=0.01)
    transformer = counted["diffusion_transformer"]["parameters"]
    assert 2 * transformer < 16 * kept["frozen diffusion_transformer"] < 2.01 * transformer  # the time embedder is fp32
