"""A new run starts from the weights of a trained VTok: of a run, one of its checkpoints or an export."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from pipelines import export, finetune, train
from pipelines.engine.initial import stored_in
from pipelines.inference.load import load_run
from support.commands import called
from support.launch import assert_user_error, checked
from support.runs import CONFIG, DS_CONFIG, log_of, make_shards
from vtok.assembly.pretrained import from_pretrained, read_config
from vtok.config import ConfigError

STEPS = ("--train.max_steps", 2, "--train.global_batch_size", 4, "--data.seconds", 1, "--validation.every", 0)
LAST = "checkpoints/step_00000002"
STILL = ("--train.lr", 1e-30)  # so that a run ends with the weights that it began with


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "run"
    options = ("--config", CONFIG, "--ds_config", DS_CONFIG, "--data.shards", shards, "--output", output)
    checked(called(train.main, *options, *STEPS, "--train.lr", 1e-2, "--checkpoint.every", 1, "--train.ema_decay", 0.5))
    return output


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "vtok"
    checked(called(export.main, "--checkpoint", trained, "--output", folder, "--dtype", "fp32"))
    return folder


def weights_of(checkpoint):
    """The weights in a checkpoint that one rank wrote."""
    stored = load_file(checkpoint / "rank_00000.safetensors")
    return {key: value for key, value in stored.items() if key.startswith("weights/")}


def started(start, place, shards, output, *more):
    return start("--init_from", place, "--data.shards", shards, "--output", output, *STEPS, *STILL, *more)


def alone(*words):
    return called(train.main, *words)


@pytest.mark.slow
def test_each_rank_reads_its_slices(ranks, trained, shards, tmp_path):
    new = tmp_path / "new"
    done = checked(started(lambda *words: ranks.run(train.main, *words), trained, shards, new))
    assert f"starting from the trained VTok {trained}, " in done.stdout
    assert [json.loads((run / LAST / "state.json").read_text())["ranks"] for run in (new, trained)] == [2, 1]
    assert [line["step"] for line in log_of(new)] == [1, 2]
    ours, theirs = (dict(load_run(run)[1].named_parameters()) for run in (new, trained))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    ours, theirs = (load_file(run / LAST / "feature_scale.safetensors") for run in (new, trained))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_one_checkpoint_of_a_run(trained, shards, tmp_path):
    place = trained / "checkpoints/step_00000001"
    checked(started(alone, place, shards, tmp_path / "new"))
    ours, theirs, last = weights_of(tmp_path / "new" / LAST), weights_of(place), weights_of(trained / LAST)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert not all(torch.equal(theirs[key], last[key]) for key in theirs)


def test_the_average_of_a_run(trained):
    stored = load_file(trained / LAST / "rank_00000.safetensors")
    with stored_in(str(trained), ema=True) as found:
        for name in found.names:
            average = torch.empty_like(stored[f"ema/{name}"])
            found.find(name).read_into(average, 0)
            assert torch.equal(average, stored[f"ema/{name}"])
    assert any(not torch.equal(stored[f"ema/{name}"], stored[f"weights/{name}"]) for name in found.names)


def test_an_export_says_what_a_run_says(trained, exported):
    """Every trained parameter is found in both, with the same values."""
    framework = from_pretrained(exported)
    wanted = {name: parameter for name, parameter in framework.named_parameters() if parameter.requires_grad}
    for place in (trained, exported):
        with stored_in(str(place), ema=False) as found:
            stored, unlike = found.fitting(framework)
            assert stored.keys() == wanted.keys() and not unlike
            for name, parameter in wanted.items():
                values = torch.empty(parameter.numel())
                stored[name].read_into(values, 0)
                assert torch.equal(values, parameter.detach().flatten()), name


def test_what_does_not_fit_is_named(trained, shards, tmp_path, capsys):
    other = ("--model.tokeniser.motion_hidden_dim", 40)
    refused = started(alone, trained, shards, tmp_path / "new", *other)
    assert_user_error(refused, "does not fit this model", "tokeniser.motion_encoder", "--init_strict false")
    assert not (tmp_path / "new" / "config.yaml").exists()
    done = checked(started(alone, trained, shards, tmp_path / "new", *other, "--init_strict", "false"))
    listed = [line for line in done.stdout.splitlines() if line.startswith("init.weights: ")]
    assert listed and all("tokeniser.motion_encoder" in line for line in listed)
    ours, theirs = weights_of(tmp_path / "new" / LAST), weights_of(trained / LAST)
    fits = [key for key in theirs if "motion_encoder" not in key]
    assert fits and all(torch.equal(ours[key], theirs[key]) for key in fits)


def test_what_is_no_trained_model_is_refused(shards, tmp_path):
    (tmp_path / "empty").mkdir()
    refused = started(alone, tmp_path / "empty", shards, tmp_path / "new", "--config", CONFIG)
    assert_user_error(refused, "init.weights", "vtok_config.json")


FOREIGN = [
    ("config.yaml", "model_name: llava", "no section model"),
    ("config.yaml", "model: llava", "no section model"),
    ("config.yaml", "model: {}", "no section data"),
    ("config.yaml", "model: {mllm: [1]}\ndata: {seconds: 1}", "mllm"),
    ("config.yaml", "- 1", "should hold sections"),
    ("vtok_config.json", '{"mllm": {', "export the model again"),
    ("vtok_config.json", "[]", "should hold one object"),
    ("vtok_config.json", "{}", "no section tokeniser"),
]


@pytest.mark.parametrize("name, text, problem", FOREIGN)
def test_a_foreign_or_damaged_model_is_one_line(tmp_path, name, text, problem):
    """In training, and in the command that also packs clips."""
    other = tmp_path / "other"
    other.mkdir()
    (other / name).write_text(text)
    (tmp_path / "clips").mkdir()
    start = called(train.main, "--init_from", other, "--data.root", tmp_path / "clips", "--output", tmp_path / "new")
    assert_user_error(start, problem)
    further = called(finetune.main, tmp_path / "clips", "--from", other, "--output", tmp_path / "fine")
    assert_user_error(further, problem)
    assert not (tmp_path / "new").exists() and not (tmp_path / "fine").exists()


@pytest.mark.parametrize("values", ["[]", '{"tokeniser": null}', "[" * 100_000])
def test_settings_that_are_no_object_are_refused(tmp_path, values):
    (tmp_path / "vtok_config.json").write_text(values)
    with pytest.raises(ConfigError, match="vtok_config.json does not hold a model's settings"):
        read_config(tmp_path / "vtok_config.json")


@pytest.mark.long
def test_an_export_is_read_at_the_start_only(trained, exported, shards, tmp_path):
    place, new = shutil.copytree(exported, tmp_path / "export"), tmp_path / "new"
    checked(started(alone, place, shards, new))
    theirs, ours = weights_of(trained / LAST), weights_of(new / LAST)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    (place / "vtok.safetensors").unlink()
    checked(called(train.main, "--output", new, "--resume", "auto", "--train.max_steps", 3))
    assert [line["step"] for line in log_of(new)] == [1, 2, 3]
