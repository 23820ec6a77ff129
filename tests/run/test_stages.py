"""A run in stages: what a stage may change, each stage's folder, resuming anywhere, and the plan's sums."""

import json
import shutil

import pytest
import torch
import yaml

from pipelines import export, plan, train
from pipelines.cli.parsing import parse_run_arguments
from pipelines.cli.stages import stages_of
from pipelines.inference.load import load_run
from support.commands import called
from support.launch import REPO, assert_user_error, checked
from support.runs import CONFIG, DS_CONFIG, log_of, make_shards, without_rates
from vtok.config import ConfigError
from vtok.parts import part_of

pytestmark = pytest.mark.slow  # it trains

PRESET = REPO / "pipelines/configs/llava_next_8b_hunyuan_stages.yaml"
STAGES = [
    {"name": "align", "train": {"max_steps": 2, "parts": {"visual_head": 1e-2, "g_phi": 1e-2}}},
    {
        "name": "all",
        "train": {"max_steps": 3, "lr": 1e-3},
        "model": {"loss": {"dec": 0.5}},
        "data": {"window": "centred"},
    },
]
FIRST, SECOND = "stage_1_align", "stage_2_all"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config(shards, tmp_path_factory):
    """A preset of the tiny models in two stages."""
    settings = yaml.safe_load((REPO / CONFIG).read_text()) | {"stages": STAGES}
    settings["train"] |= {"global_batch_size": 4, "warmup_steps": 0}
    settings["data"] = {"shards": str(shards), "seconds": 1, "workers": 0}
    settings |= {"validation": {"every": 0}, "checkpoint": {"every": 1, "keep": 9}}
    path = tmp_path_factory.mktemp("config") / "staged.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def staged(ranks, config, tmp_path_factory):
    """A run of two ranks through both stages."""
    output = tmp_path_factory.mktemp("staged") / "run"
    done = checked(ranks.run(train.main, "--config", config, "--ds_config", DS_CONFIG, "--output", output))
    assert f"stage 1 of 2: {FIRST}" in done.stdout and f"stage 2 of 2: {SECOND}" in done.stdout
    return output


def parameters_of(run):
    return {name: p.detach() for name, p in load_run(run)[1].named_parameters()}


def test_each_stage_is_a_run_that_starts_from_the_one_before(staged):
    assert [[line["step"] for line in log_of(staged / name)] for name in (FIRST, SECOND)] == [[1, 2], [1, 2, 3]]
    assert "lr/g_phi" in log_of(staged / FIRST)[0] and log_of(staged / SECOND)[0]["lr"] == 1e-3
    first, second = parameters_of(staged / FIRST), parameters_of(staged / SECOND)
    drawn = json.loads((staged / FIRST / "kept/state.json").read_text())["shapes"]
    assert {part_of(name) for name in drawn} == {"positions"} and not (staged / SECOND / "kept").exists()
    assert all(
        not torch.equal(first[name], second[name]) for name in first if "self_attn.q_proj" in name and "mllm" in name
    )
    settings = yaml.safe_load((staged / SECOND / "config.yaml").read_text())
    assert settings["init"]["weights"] == str(staged / FIRST) and settings["model"]["loss"]["dec"] == 0.5
    assert settings["seed"] == 1 and settings["train"]["parts"] is None and settings["data"]["window"] == "centred"


def test_commands_take_the_last_stage(staged, tmp_path):
    ours, theirs = parameters_of(staged), parameters_of(staged / SECOND)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    done = checked(called(export.main, "--checkpoint", staged, "--step", 2, "--output", tmp_path / "export"))
    assert f"after step 2 of {staged / SECOND}" in done.stdout


def test_it_resumes_anywhere(ranks, staged, tmp_path):
    """In a stage to the last digit; in the next one if a stage is finished; not at all if all are."""
    again = shutil.copytree(staged, tmp_path / "again", symlinks=True)
    resume = ("--output", again, "--resume", "auto", "--ds_config", DS_CONFIG)
    done = checked(ranks.run(train.main, *resume))
    assert "stage" not in done.stdout
    shutil.rmtree(again / SECOND / "checkpoints/step_00000003")
    (again / SECOND / "FINISHED").unlink()
    done = checked(ranks.run(train.main, *resume))
    assert "stage 1" not in done.stdout
    assert without_rates(log_of(again / SECOND)) == without_rates(log_of(staged / SECOND))
    assert_user_error(called(train.main, "--config", again / "config.yaml", "--output", again), "already holds a run")


@pytest.mark.parametrize("dry", [(), ("--dry_run",)])
def test_a_run_in_stages_and_one_without_do_not_take_each_other_s_folder(config, staged, tmp_path, dry):
    settings = yaml.safe_load(config.read_text()) | {"stages": None}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(settings))
    plain = ("--config", tmp_path / "plain.yaml", "--train.max_steps", 1, "--resume", "auto", *dry)
    refused = called(train.main, *plain, "--output", staged)
    assert_user_error(refused, f"{staged} holds a run in stages ({SECOND}), and this configuration has no stages")
    refused = called(train.main, "--config", config, "--output", staged / FIRST, "--resume", "auto", *dry)
    assert_user_error(refused, f"{staged / FIRST} holds a run without stages, and this configuration has stages")
    assert not (staged / "log.jsonl").exists() and not (staged / FIRST / FIRST).exists()
    checked(called(train.main, "--config", config, "--output", staged, "--resume", "auto", "--dry_run"))


def test_a_stage_that_another_has_begun_from_does_not_change(config, staged, tmp_path):
    again = shutil.copytree(staged, tmp_path / "again", symlinks=True)
    settings = yaml.safe_load(config.read_text())
    settings["stages"][0]["train"]["max_steps"] = 5
    (tmp_path / "longer.yaml").write_text(yaml.safe_dump(settings))
    refused = called(train.main, "--config", tmp_path / "longer.yaml", "--output", again, "--resume", "auto")
    assert_user_error(refused, f"{SECOND} has begun from it")


@pytest.mark.parametrize(
    "stage, said",
    [
        ({"name": "a", "train": {"max_step": 3}}, "stages, a: unknown key train.max_step"),
        ({"name": "a", "model": {"mllm": {"lora": None}}}, "stages, a: a stage cannot change model.mllm"),
        ({"name": "a", "train": {"lr": -1}}, "stages, a: .*train.lr must be positive"),
        ({"name": "a", "train": {"lr": 0.1, "parts": {"g_phi": 0.1}}}, "stages, a: train.lr has no effect beside"),
        ({"name": "a", "seed": 3}, "a stage cannot change seed"),
    ],
)
def test_slips_in_a_stage_are_named(config, tmp_path, stage, said):
    settings = yaml.safe_load(config.read_text()) | {"stages": [stage]}
    (tmp_path / "slip.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match=said):
        stages_of(parse_run_arguments(["--config", str(tmp_path / "slip.yaml")]).config)
    refused = called(train.main, "--config", tmp_path / "slip.yaml", "--output", tmp_path / "run")
    assert refused.returncode == 2 and not (tmp_path / "run").exists()


def test_names_must_differ(config, tmp_path):
    settings = yaml.safe_load(config.read_text())
    settings["stages"][1]["name"] = "align"
    (tmp_path / "twice.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match="each of the stages needs a name of its own"):
        parse_run_arguments(["--config", str(tmp_path / "twice.yaml")])


@pytest.mark.slow
def test_the_plan_sums_the_stages():
    figures = json.loads(checked(called(plan.main, "--config", PRESET, "--gpus", 8, "--json")).stdout)
    stages = list(figures["stages"].values())
    assert figures["run_days"] == pytest.approx(sum(stage["run_days"] for stage in stages)) and figures["fits"]
    moments = [stage["gpu_memory"]["kept"]["moments"] for stage in stages]
    assert moments[0] < 0.05 * moments[1] and stages[0]["step_seconds"] < stages[1]["step_seconds"]
