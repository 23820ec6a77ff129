"""A run that trains some parts, each at its own rate: logs, checkpoints, resuming, and where the frozen weights lie."""

import json
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipelines import export
from pipelines.engine.initial import stored_in
from pipelines.engine.saving import kept
from pipelines.engine.saving.folders import erase
from pipelines.inference.load import load_run
from support import runs
from support.commands import called
from support.launch import assert_user_error, checked
from support.runs import log_of, make_shards, without_rates
from vtok.assembly.pretrained import from_pretrained
from vtok.config import ConfigError
from vtok.parts import part_of

LAST = "checkpoints/step_00000004"
TABLE = {"language_model.layers.2-3": 1e-4, "g_phi": 1e-2}
PARTS = ("--train.parts", json.dumps(TABLE))
SETTINGS = (
    "--train.max_steps", 4, "--train.warmup_steps", 2, "--train.global_batch_size", 4, "--data.seconds", 1,
    "--validation.every", 0, "--checkpoint.every", 2, "--checkpoint.keep", 9,
)  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data"))


started = partial(runs.started, SETTINGS)


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """A run that trains all."""
    output = tmp_path_factory.mktemp("whole") / "run"
    checked(started(shards, output, "--train.lr", 1e-2))
    return output


@pytest.fixture(scope="module")
def parts(ranks, shards, tmp_path_factory):
    """A run of two ranks that trains some parts."""
    output = tmp_path_factory.mktemp("parts") / "run"
    checked(started(shards, output, *PARTS, start=ranks.run))
    return output


def parameters_of(run):
    return {name: p.detach() for name, p in load_run(run)[1].named_parameters()}


def test_only_the_parts_change(parts):
    before, after = parameters_of(parts / "checkpoints/step_00000002"), parameters_of(parts)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert {part_of(name) for name in changed} == {"language_model", "g_phi"}
    assert {name.split(".")[4] for name in changed if name.startswith("mllm.")} == {"2", "3"}
    state = json.loads((parts / LAST / "state.json").read_text())
    assert {part_of(name) for name in state["shapes"]} == {"language_model", "g_phi"} and "language_model" in state[
        "frozen"
    ]


def test_the_log_has_a_rate_for_each(parts):
    lines = log_of(parts)
    for entry, rate in TABLE.items():
        assert [line[f"lr/{entry}"] for line in lines] == pytest.approx([rate / 2, rate, rate, rate])
    assert all("lr" not in line and line["ema_distance"] is not None for line in lines)
    events = EventAccumulator(str(parts / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("lr/g_phi")] == pytest.approx([5e-3, 1e-2, 1e-2, 1e-2])


@pytest.mark.slow
def test_it_resumes_to_the_last_digit_and_on_another_number_of_ranks(ranks, parts, shards, tmp_path):
    again = shutil.copytree(parts, tmp_path / "again")
    shutil.rmtree(again / LAST)
    checked(started(shards, again, *PARTS, "--resume", "auto", start=ranks.run))
    assert without_rates(log_of(again)) == without_rates(log_of(parts))
    shutil.rmtree(again / LAST)
    checked(started(shards, again, *PARTS, "--resume", "auto", "--train.max_steps", 5))
    theirs, ours = ([line["loss"] for line in log_of(run)[:4]] for run in (parts, again))
    assert ours == pytest.approx(theirs, rel=1e-4) and len(log_of(again)) == 5


@pytest.mark.slow
def test_other_parts_are_another_run(parts, shards, tmp_path):
    again = shutil.copytree(parts, tmp_path / "again")
    refused = started(shards, again, "--train.parts.g_phi", 1e-2, "--resume", "auto")
    assert_user_error(refused, "is of another model: mllm.causal_lm.model.layers.2")
    file = again / "models/llava/model.safetensors"
    stored = load_file(file)
    norm = next(name for name in stored if "language_model" in name and name.endswith("model.norm.weight"))
    stored[norm][0] += 1
    save_file(stored, file, {"format": "pt"})
    refused = started(shards, again, *PARTS, "--resume", "auto")
    assert_user_error(refused, "its language_model had the weights")


@pytest.mark.slow
def test_frozen_weights_of_a_trained_vtok_stay_with_the_run(ranks, whole, shards, tmp_path):
    """The run keeps them, so it needs its source at the start only. It is exported and started from like any other."""
    source, new = shutil.copytree(whole, tmp_path / "source"), tmp_path / "new"
    checked(started(shards, new, "--init_from", source, *PARTS, start=ranks.run))
    shutil.rmtree(source)
    theirs, ours = parameters_of(whole), parameters_of(new)
    same = {name for name in ours if torch.equal(ours[name], theirs[name])}
    assert {part_of(name) for name in ours.keys() - same} == {"language_model", "g_phi"}
    stored = [load_file(path) for path in sorted((new / "kept").glob("rank_*.safetensors"))]
    names = {key.removeprefix("weights/") for slices in stored for key in slices}
    trained = json.loads((new / LAST / "state.json").read_text())["shapes"].keys()
    assert len(stored) == 2 and not names & trained
    assert {part_of(name) for name in names} == {
        "language_model", "embeddings", "lm_head", "projector", "positions", "visual_head"
    }  # fmt: skip

    checked(started(shards, new, *PARTS, "--resume", "auto", "--train.max_steps", 5))
    resumed = parameters_of(new)
    assert all(torch.equal(resumed[name], theirs[name]) for name in same)
    checked(called(export.main, "--checkpoint", new, "--output", tmp_path / "export", "--dtype", "fp32"))
    exported = dict(from_pretrained(tmp_path / "export").named_parameters())
    assert all(torch.equal(exported[name], resumed[name]) for name in resumed)
    with stored_in(str(new), ema=False) as found:
        fitting, unlike = found.fitting(load_run(new)[1])
        assert fitting.keys() == {name for name in resumed if part_of(name)} and not unlike
        for name, stored in fitting.items():
            values = torch.empty(resumed[name].numel())
            stored.read_into(values, 0)
            assert torch.equal(values, resumed[name].flatten()), name


def test_only_drawn_parameters_are_kept_without_a_trained_vtok(parts):
    """The language model's own weights can be read again."""
    kept = json.loads((parts / "kept/state.json").read_text())["shapes"]
    assert {part_of(name) for name in kept} == {"positions", "visual_head"}


def test_damage_to_what_is_kept_is_told(parts, shards, tmp_path):
    again = shutil.copytree(parts, tmp_path / "again")
    file = next((again / "kept").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    refused = started(shards, again, *PARTS, "--resume", "auto", "--train.max_steps", 5)
    assert_user_error(refused, "has changed since it was written", "frozen weights")


@pytest.mark.parametrize("lost", ["kept", "kept/COMPLETE"])
def test_a_checkpoint_is_not_read_without_what_its_run_has_kept(ranks, parts, shards, tmp_path, lost):
    again = shutil.copytree(parts, tmp_path / "again")
    erase(again / "kept") if lost == "kept" else (again / lost).unlink()
    told = (
        f"{again / LAST} was trained with frozen weights that its run holds in kept/, and {again / 'kept'} is not there"
    )
    refused = called(export.main, "--checkpoint", again, "--output", tmp_path / "export")
    assert_user_error(refused, told)
    resumed = started(shards, again, *PARTS, "--resume", "auto", "--train.max_steps", 5, start=ranks.run)
    assert_user_error(resumed, told)
    with pytest.raises(ConfigError, match="copy it too"), stored_in(str(again), ema=False):
        pass


def test_a_checkpoint_that_is_copied_alone_needs_a_copy_of_what_is_kept(parts, tmp_path):
    alone = shutil.copytree(parts / LAST, tmp_path / "alone")
    with pytest.raises(ConfigError, match="copy it too"), kept.opened(alone, alone):
        pass
    shutil.copytree(parts / "kept", alone / "kept")
    with kept.opened(alone, alone) as stored:
        assert stored.keys() == json.loads((parts / "kept/state.json").read_text())["shapes"].keys()
    (alone / "kept/COMPLETE").write_text("{}")
    with pytest.raises(ConfigError, match="holds other frozen weights than .*alone was trained with"):
        with kept.opened(alone, alone):
            pass


def test_a_checkpoint_of_an_earlier_version_names_nothing_and_is_read(parts, tmp_path):
    again = shutil.copytree(parts, tmp_path / "again")
    state = json.loads((again / LAST / "state.json").read_text())
    assert state.pop("kept")
    (again / LAST / "state.json").write_text(json.dumps(state))
    with kept.opened(again, again / LAST) as stored:
        assert stored
    (again / "kept/COMPLETE").unlink()
    with pytest.raises(ConfigError, match="copy it too"), kept.opened(again, again / LAST):
        pass
    erase(again / "kept")
    with kept.opened(again, again / LAST) as stored:
        assert not stored


def test_a_part_that_the_model_lacks_is_named_before_anything_is_written(shards, tmp_path):
    refused = started(shards, tmp_path / "new", "--train.parts.decoder_adapter", 1e-3)
    assert_user_error(refused, "train.parts: this model has no decoder_adapter that could train")
    assert not (tmp_path / "new/config.yaml").exists()
