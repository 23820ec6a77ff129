"""Every DeepSpeed configuration trains the same model; combinations that cannot are refused in one line."""

import json

import pytest
from deepspeed.runtime.config import DeepSpeedConfig

from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from pipelines import train
from pipelines.cli.config_files import read_ds_config, read_yaml
from pipelines.config import TrainConfig
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.ds_json import refusals
from pipelines.engine.setup import deepspeed_config
from pipelines.planning.sharding import read_sharding
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


@pytest.mark.long
@pytest.mark.parametrize("name", [name.removesuffix(".json") for name in CONFIGS if name != "zero3.json"])
def test_each_configuration_gives_zero3_s_curve(runs, name):
    for ours, theirs in zip(runs[name], runs["zero3"], strict=True):
        assert ours["batch_digest"] == theirs["batch_digest"]
        for figure in FIGURES:
            assert ours[figure] == pytest.approx(theirs[figure], rel=1e-4), (ours["step"], figure)


@pytest.mark.long
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


ZERO3 = {"zero_optimization": {"stage": 3}}


@pytest.mark.parametrize(
    "config, message",
    [
        ({"zero_optimisation": {}}, "unknown key zero_optimisation; did you mean zero_optimization?"),
        ({"gradient_cliping": 1.0}, "unknown key gradient_cliping; did you mean gradient_clipping?"),
        (
            {"zero_optimization": {"stag": 3}},
            "unknown key zero_optimization.stag; did you mean zero_optimization.stage",
        ),
        ({"zero_optimization": {"stage": 3, "stage3_max_live_parameter": 1}}, "stage3_max_live_parameters?"),
        ({"zero_optimization": {"offload_optimizer": {"devic": "cpu"}}}, "zero_optimization.offload_optimizer.device?"),
        ({"zero_optimization": {"offload_optimizer": True}}, "offload_optimizer is True, but must be a section"),
        ({"zero_optimization": {"offload_param": {"device": "gpu"}}}, "offload_param.device is 'gpu': Input should be"),
        ({"zero_optimization": {"reduce_bucket_size": "5e8"}}, "reduce_bucket_size is '5e8': Input should be a valid"),
        ({"zero_optimization": {"reduce_bucket_size": -1}}, "reduce_bucket_size is -1: Input should be greater than 0"),
        (
            {"zero_optimization": {"stage": "auto"}},
            "zero_optimization.stage is not set: this engine trains with 2 or 3",
        ),
        (
            {"zero_optimization": {"stage": 3, "cpu_offload": True}},
            "cpu_offload is deprecated: write offload",
        ),
        ({"zero_optimization": {"stage": 3, "reduce_bucket_size": 10**30}}, "reduce_bucket_size must be below 9,223"),
        ({"zero_optimization": None}, "zero_optimization.stage is not set: this engine trains with 2 or 3"),
        ({"gradient_cliping": None}, "unknown key gradient_cliping; did you mean gradient_clipping?"),
        ({"zero_optimization": True}, "zero_optimization is True, but must be a section"),
        ({"data_types": {"grad_accum_dtyp": "fp32"}}, "data_types.grad_accum_dtype?"),
        ({"tensorboard": {"enable": True}}, "tensorboard.enabled?"),
        ({"steps_per_print": 0}, "steps_per_print is 0: Input should be greater than or equal to 1"),
        ({"communication_data_type": "fp64"}, "communication_data_type is 'fp64': Input should be 'fp32'"),
        ({"optimizer": {"type": "Adam"}}, "optimizer is not read from here: .* train.lr"),
        ({"fp16": {"enabled": True}}, "fp16.enabled is True, but this run needs False; .* train.precision"),
        ({"bf16": {"enabled": True}}, "bf16.enabled is True, but this run needs False; .* train.precision"),
        ({"bf16": {"enabld": True}}, "unknown key bf16.enabld; did you mean bf16.enabled?"),
        ({"bf16": {"enabled": False, "loss_scale": 0}}, "unknown key bf16.loss_scale; did you mean bf16."),
        (
            {"bf16": {"enabled": "auto", "immediate_grad_update": True}},
            "bf16.immediate_grad_update is True, but this run needs False",
        ),
        ({"bf16": {"enabled": "maybe"}}, "bf16.enabled is 'maybe': Input should be a valid boolean"),
        ({"bf16": "auto"}, "bf16 is 'auto', but must be a section"),
        ({"fp16": {"enabld": True}}, "unknown key fp16.enabld; did you mean fp16.enabled?"),
        ({"fp16": {"loss_scale": 128}}, "fp16.loss_scale is 128.0, but this run needs 0"),
        ({"fp16": "auto"}, "fp16 is 'auto', but must be a section"),
        ({"train_batch_size": "many"}, "train_batch_size is 'many': Input should be a valid integer"),
        ({"zero_optimization": {"stage": 3, "zenflow": {}}}, "zero_optimization.zenflow does not work with this"),
        ([ZERO3], "should hold one object"),
    ],
)
def test_a_slip_in_the_json_is_one_line_with_the_key(tmp_path, config, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message.replace("?", "[?]").replace("{", "[{]")) as refused:
        deepspeed_config(path, TrainConfig(max_steps=1), plan_batch(4, 1, 2))
    assert "\n" not in str(refused.value)


def test_a_null_is_no_setting(tmp_path):
    path = tmp_path / "x.json"
    zero = {"stage": 3, "offload_optimizer": None, "overlap_comm": None, "zero_hpz_partition_size": None}
    others = dict.fromkeys(("data_types", "bf16", "fp16", "gradient_clipping", "train_batch_size", "steps_per_print"))
    path.write_text(json.dumps({"zero_optimization": zero, "wandb": {"enabled": None}} | others))
    config = deepspeed_config(path, TrainConfig(max_steps=1), plan_batch(4, 1, 2))
    assert config["zero_optimization"] == {"stage": 3, "zero_hpz_partition_size": 1}
    assert "data_types" not in config and config["wandb"] == {} and config["gradient_clipping"] == 1.0


def test_what_deepspeed_refuses_is_one_line_and_our_own_errors_stay():
    sizes = {"train_batch_size": 3, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 7}
    with pytest.raises(ConfigError, match="refuses the settings of --ds_config: .*3 != 2 .* 7") as refused:
        with refusals():
            DeepSpeedConfig(sizes)
    assert "\n" not in str(refused.value)
    with pytest.raises(ZeroDivisionError), refusals():
        1 // 0
    with pytest.raises(AssertionError, match="^ours$"), refusals():
        raise AssertionError("ours")


def test_a_key_twice_in_the_json_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"zero_optimization": {"stage": 3, "stage": 2}}')
    with pytest.raises(ConfigError, match="stage is given twice"):
        deepspeed_config(tmp_path / "x.json", TrainConfig(max_steps=1), plan_batch(4, 1, 2))


def test_the_json_of_another_trainer_that_leaves_all_to_the_run_is_taken(tmp_path):
    """That of the documentation of transformers, and ``auto`` elsewhere."""
    scale = {
        "loss_scale": 0,
        "loss_scale_window": 1000,
        "initial_scale_power": 16,
        "hysteresis": 2,
        "min_loss_scale": 1,
    }
    zero = {"stage": 3, "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto", "sub_group_size": 1e9}
    config = {
        "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"} | scale, "zero_optimization": zero,
        "train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto", "steps_per_print": "auto", "data_types": {"grad_accum_dtype": "auto"},
    }  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps(config))
    settled = deepspeed_config(tmp_path / "x.json", TrainConfig(max_steps=1), plan_batch(4, 1, 2))
    assert settled["train_batch_size"] == 4 and settled["bf16"]["enabled"] is False and "fp16" not in settled
    assert settled["zero_optimization"] == {"stage": 3, "sub_group_size": 10**9, "zero_hpz_partition_size": 1}
    assert settled["data_types"] == {} and "steps_per_print" not in settled
    DeepSpeedConfig(settled | {"train_batch_size": 2, "gradient_accumulation_steps": 2})  # of one rank
    assert read_sharding(tmp_path / "x.json", 4).prefetch == 5e7


def test_deepspeed_gets_each_value_with_its_type(tmp_path):
    config = ZERO3 | {"wall_clock_breakdown": "false", "steps_per_print": "10", "train_batch_size": "4"}
    config["zero_optimization"] = {"stage": "3", "offload_param": {"device": "none", "pin_memory": 0}}
    (tmp_path / "x.json").write_text(json.dumps(config))
    settled = deepspeed_config(tmp_path / "x.json", TrainConfig(max_steps=1), plan_batch(4, 1, 2))
    assert settled["wall_clock_breakdown"] is False and settled["steps_per_print"] == 10
    offload = {"device": "none", "pin_memory": False}
    assert settled["zero_optimization"] == {"stage": 3, "offload_param": offload, "zero_hpz_partition_size": 1}


@pytest.mark.parametrize("read", [read_ds_config, read_yaml])
def test_a_file_that_is_nested_without_end_is_one_line(tmp_path, read):
    (tmp_path / "x").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="nested too deeply"):
        read(tmp_path / "x")
