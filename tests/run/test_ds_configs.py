"""Every DeepSpeed configuration trains the same model; combinations that cannot are refused in one line."""

import json

import pytest

from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from pipelines import train
from pipelines.config import TrainConfig
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.setup import deepspeed_config
from support.launch import REPO, checked
from vtok.config import ConfigError

CONFIGS = sorted(path.name for path in (REPO / "deepspeed_configs").glob("*.json"))
RUN = (
    "--config", "pipelines/configs/tiny.yaml", "--train.max_steps", 4, "--train.global_batch_size", 4,
    "--train.micro_batch_size", 1, "--data.seconds", 1, "--data.workers", 0, "--checkpoint.every", 3,
    "--model.loss.dec_every", 2, "--model.decoder.loss_latent_frames", 2, "--model.decoder.loss_height", 32,
    "--model.decoder.loss_width", 32,
)  # fmt: skip
FIGURES = ("loss", "loss_under", "loss_vis_lm", "grad_norm")


def zero_of(name):
    return json.loads((REPO / "deepspeed_configs" / name).read_text())["zero_optimization"]


@pytest.fixture(scope="module")
def runs(ranks, tmp_path_factory):
    """Logs of a short run per configuration, all parameters sharded; ``half`` is zero3's, resumed at step 3."""
    folder = tmp_path_factory.mktemp("ds_configs")
    render_clips(folder / "clips", 10, seed=3)
    build_shards(folder / "clips", folder / "shards", samples_per_shard=4, progress=False)
    commands = []
    for name in CONFIGS:
        config = json.loads((REPO / "deepspeed_configs" / name).read_text())
        if config["zero_optimization"]["stage"] == 3:
            config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        (folder / name).write_text(json.dumps(config))
        where = ("--data.shards", folder / "shards", "--output", folder / name.removesuffix(".json"))
        commands.append([*RUN, "--ds_config", folder / name, *where])
    half = [*RUN, "--ds_config", folder / "zero3.json", "--data.shards", folder / "shards", "--output", folder / "half"]
    commands = [[*half, "--train.max_steps", 3], [*half, "--resume", "auto"], *commands]
    for command in commands:
        checked(ranks.run(train.main, *command))
    read = lambda name: [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]  # noqa: E731
    return {name: read(name) for name in [*(name.removesuffix(".json") for name in CONFIGS), "half"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name.removesuffix(".json") for name in CONFIGS if name != "zero3.json"])
def test_each_configuration_gives_zero3_s_curve(runs, name):
    for ours, theirs in zip(runs[name], runs["zero3"], strict=True):
        assert ours["batch_digest"] == theirs["batch_digest"]
        for figure in FIGURES:
            assert ours[figure] == pytest.approx(theirs[figure], rel=1e-4), (ours["step"], figure)


@pytest.mark.slow
def test_steps_with_and_without_l_dec_alternate_and_resuming_keeps_them(runs):
    log = runs["zero3"]
    assert [line["loss_dec"] is None for line in log] == [False, True, False, True]
    for line in log:
        assert line["loss"] == pytest.approx(
            line["loss_under"] + line["loss_vis_lm"] + (line["loss_dec"] or 0), rel=1e-5
        )
    for name in (*FIGURES, "loss_dec", "batch_digest", "lr", "skipped"):
        assert [line[name] for line in runs["half"]] == [line[name] for line in log]


def test_a_machine_s_ranks_are_hpz_s_partition(monkeypatch):
    monkeypatch.setenv("LOCAL_SIZE", "8")
    plan = plan_batch(16, 1, 16)
    path = REPO / "deepspeed_configs/zero3_hpz.json"
    assert deepspeed_config(path, TrainConfig(max_steps=1), plan)["zero_optimization"]["zero_hpz_partition_size"] == 8


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("zero2.json", {"stage": 1}, "zero_optimization.stage is 1: this engine trains with 2 or 3"),
        ("zero2.json", {"offload_param": {"device": "cpu"}}, "offload_param needs zero_optimization.stage 3"),
        ("zero2.json", {"zero_hpz_partition_size": 2}, "zero_hpz_partition_size needs zero_optimization.stage 3"),
        ("zero2.json", {"compute_grad_norm": False}, "compute_grad_norm must be true"),
        ("zero3_offload.json", {"offload_optimizer": {"device": "nvme"}}, "offload_optimizer.device is nvme"),
        ("zero3_hpz.json", {"zero_hpz_partition_size": 3}, "zero_hpz_partition_size 3 does not divide 2 ranks"),
        ("zero3_hpz.json", {"zero_hpz_partition_size": 0}, "zero_hpz_partition_size 0 does not divide 2 ranks"),
    ],
)
def test_combinations_that_cannot_train_are_refused(tmp_path, name, changes, message):
    path = tmp_path / name
    path.write_text(json.dumps({"zero_optimization": zero_of(name) | changes}))
    with pytest.raises(ConfigError, match=message):
        deepspeed_config(path, TrainConfig(max_steps=1), plan_batch(4, 1, 2))
