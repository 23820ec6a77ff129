"""The parts of a checkpoint that need no engine: slices in files, which folders stay, what is damaged."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli.parsing import parse_run_arguments
from pipelines.cli.steps import folder_of
from pipelines.config import CheckpointConfig
from pipelines.engine.saving.checkpoint import RunState, read_state
from pipelines.engine.saving.choosing import candidates, first_sound, located, seal, set_later_aside
from pipelines.engine.saving.folders import COMPLETE, complete, make_empty, step_of
from pipelines.engine.saving.rotation import remove_old
from pipelines.engine.saving.slices import SliceReader, slice_file, write_slices
from pipelines.engine.saving.writing import mark_complete, write_all, write_own
from vtok.config import ConfigError


@pytest.fixture(scope="module")
def cut_in_three(tmp_path_factory):
    """100 elements of "w" in three files, the first of which has none of them."""
    folder, w = tmp_path_factory.mktemp("slices"), torch.arange(100.0)
    write_slices(slice_file(folder, 0), {"weights/other": torch.ones(2)}, {"other": 0})
    write_slices(slice_file(folder, 1), {"weights/w": w[:37]}, {"w": 0})
    write_slices(slice_file(folder, 2), {"weights/w": w[37:]}, {"w": 37})
    return folder


@given(start=st.integers(0, 99), numel=st.integers(1, 100))
def test_any_range_is_read_however_it_was_cut(cut_in_three, start, numel):
    numel = min(numel, 100 - start)
    with SliceReader(cut_in_three) as stored:
        found = torch.full((numel,), -1.0, dtype=torch.float64)
        stored.read_into(found, "weights/w", start)
        assert torch.equal(found, torch.arange(100.0, dtype=torch.float64)[start : start + numel])


def test_a_range_that_no_file_holds_is_an_error(cut_in_three):
    with SliceReader(cut_in_three) as stored:
        assert "weights/w" in stored and "ema/w" not in stored
        with pytest.raises(ConfigError, match="elements 100 to 101"):
            stored.read_into(torch.empty(11), "weights/w", 90)
    assert not list(cut_in_three.glob("*.part"))


@pytest.mark.parametrize("name", ["rank_00000-old.safetensors", "rank_00001.safetensors", "rank_backup.safetensors"])
@pytest.mark.parametrize("content", ["a copy", "nothing"])
def test_a_file_that_a_user_put_beside_a_checkpoint_s_is_not_read(run, name, content):
    stray = folder_of(run, 6) / name
    write_slices(stray, {"weights/w": torch.zeros(1000)}, {})
    if content == "nothing":
        stray.write_bytes(b"")
    with SliceReader(folder_of(run, 6)) as stored:
        assert torch.equal(read(stored), torch.ones(1000))


def test_a_checkpoint_from_before_checksums_is_read_by_the_names_of_its_files(run):
    folder = folder_of(run, 6)
    mark_complete(folder, {"seconds": 1.0})
    write_slices(folder / "rank_00000-old.safetensors", {"weights/w": torch.zeros(1000)}, {})
    assert located(run) == (run, folder)
    with SliceReader(folder) as stored:
        assert torch.equal(read(stored), torch.ones(1000))


@pytest.mark.parametrize("spoil", [lambda path: os.truncate(path, 3000), lambda path: path.write_bytes(b""), os.remove])
def test_damage_from_before_checksums_is_one_line(run, spoil):
    folder = folder_of(run, 6)
    mark_complete(folder, {})
    spoil(slice_file(folder, 0))
    with pytest.raises(ConfigError, match="step_00000006.*copy it again, or take another checkpoint"):
        with SliceReader(folder) as stored:
            read(stored)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": 1, "of_a_newer_version": 2}'])
def test_a_state_that_cannot_be_read_is_one_line(run, content):
    (folder_of(run, 6) / "state.json").write_text(content)
    with pytest.raises(ConfigError, match="step_00000006/state.json cannot be read"):
        read_state(folder_of(run, 6))


def read(stored):
    values = torch.empty(1000)
    stored.read_into(values, "weights/w", 0)
    return values


@pytest.mark.parametrize(
    "keep, keep_every, stay", [(1, None, [80]), (3, None, [60, 70, 80]), (2, 30, [30, 60, 70, 80]), (9, 1, None)]
)
def test_the_latest_and_every_nth_stay(tmp_path, keep, keep_every, stay):
    steps = list(range(10, 90, 10))
    for step in steps:
        folder_of(tmp_path, step).mkdir(parents=True)
        mark_complete(folder_of(tmp_path, step), {})
    folder_of(tmp_path, 75).mkdir()  # of a run that was killed as it wrote
    remove_old(tmp_path, CheckpointConfig(keep=keep, keep_every=keep_every))
    assert [step_of(folder) for folder in complete(tmp_path)] == (stay or steps)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        folder_of(tmp_path, step).name for step in (stay or steps)
    ]
    assert {path.name for path in folder_of(tmp_path, 80).iterdir()} == {COMPLETE}


@pytest.fixture
def run(tmp_path):
    """A run's folder with sealed checkpoints of steps 2, 4 and 6."""
    (tmp_path / "config.yaml").write_text("train: {max_steps: 9}\n")
    for step in (2, 4, 6):
        write_checkpoint(folder_of(tmp_path, step))
    return tmp_path


def write_checkpoint(folder):
    folder.mkdir(parents=True)
    write_slices(slice_file(folder, 0), {"weights/w": torch.ones(1000)}, {})
    (folder / "state.json").write_text("{}")
    mark_complete(folder, {"files": {path.name: seal(path) for path in folder.iterdir()}})


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_rotation_removes_only_what_the_run_wrote(run, tmp_path_factory):
    """A copy, a note, a file in a checkpoint, a link and what it leads to: all stay, and nothing stops the run."""
    checkpoints, elsewhere = run / "checkpoints", tmp_path_factory.mktemp("archive") / "step_00000002"
    shutil.copytree(folder_of(run, 2), checkpoints / "step_best")
    (checkpoints / "step_00000002.txt").write_text("looked good")
    (folder_of(run, 4) / "note.txt").write_text("mine")
    shutil.move(folder_of(run, 2), elsewhere)
    folder_of(run, 2).symlink_to(elsewhere)
    remove_old(run, CheckpointConfig(keep=1))
    assert names(run) == ["step_00000002", "step_00000002.txt", "step_00000004", "step_00000006", "step_best"]
    assert (elsewhere / COMPLETE).exists() and (checkpoints / "step_best" / COMPLETE).exists()
    assert [path.name for path in folder_of(run, 4).iterdir()] == ["note.txt"]
    assert [step_of(folder) for folder in complete(run)] == [2, 6]


def test_what_a_process_left_that_was_killed_as_it_wrote_goes_with_its_checkpoint(run):
    (folder_of(run, 2) / ".tmpd0slAd").write_bytes(b"safetensors' own")
    remove_old(run, CheckpointConfig(keep=2))
    assert names(run) == ["step_00000004", "step_00000006"]


def test_a_checkpoint_that_cannot_be_removed_does_not_end_the_run(run, capsys, monkeypatch):
    def refused(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.unlink", refused)
    remove_old(run, CheckpointConfig(keep=1))
    assert "step_00000002 stays" in capsys.readouterr().err and len(complete(run)) == 3


def test_what_a_user_put_in_a_new_checkpoint_s_place_is_set_aside(run, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("archive")
    folder_of(run, 8).symlink_to(elsewhere)
    make_empty(folder_of(run, 8))
    assert not folder_of(run, 8).is_symlink() and (run / "checkpoints/step_00000008.aside").is_symlink()


def test_the_best_by_validation_stays_beside_the_newest(run):
    losses = [{"step": 2, "loss": 1.0}, {"step": 4, "loss": 2.0}, {"step": 6, "loss": None}]
    (run / "validation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in losses))
    remove_old(run, CheckpointConfig(keep="best"))
    assert [step_of(folder) for folder in complete(run)] == [2, 6]


def test_best_needs_a_checkpoint_at_every_validation():
    options = ["--train.max_steps", "9", "--checkpoint.keep", "best", "--checkpoint.every", "20"]
    assert parse_run_arguments([*options, "--validation.every", "40"]).config.checkpoint.keep == "best"
    with pytest.raises(ConfigError, match="validation.every 30 is not a multiple of checkpoint.every 20"):
        parse_run_arguments([*options, "--validation.every", "30"])


def truncate(path):
    os.truncate(path, 3000)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def make_empty_file(path):
    path.write_bytes(b"")


RANK, STATE = "rank_00000.safetensors", "state.json"


@pytest.mark.parametrize(
    "name, spoil",
    [(RANK, flip_a_bit), (RANK, os.remove), (RANK, make_empty_file), (RANK, truncate), (STATE, flip_a_bit),
     (STATE, os.remove), (STATE, make_empty_file), (COMPLETE, make_empty_file)],
)  # fmt: skip
def test_damage_is_told_and_the_checkpoint_before_is_taken(run, capsys, name, spoil):
    spoil(folder_of(run, 6) / name)
    assert located(run) == (run, folder_of(run, 4))
    told = capsys.readouterr().err
    assert f"step_00000006/{name}" in told and "taking the checkpoint before" in told and told.count("\n") == 1
    with pytest.raises(ConfigError, match=f"no checkpoint can be used: .*step_00000006/{name}"):
        located(folder_of(run, 6))


def test_all_damaged_is_one_line(run):
    for folder in complete(run):
        flip_a_bit(folder / "rank_00000.safetensors")
    with pytest.raises(ConfigError, match="step_00000006.*; .*step_00000004.*; .*step_00000002"):
        first_sound([[folder] for folder in candidates(run)])


def test_a_step_is_named_by_number_or_folder(run):
    shutil.copytree(folder_of(run, 2), run / "checkpoints/step_best")
    assert candidates(run, 4) == [folder_of(run, 4)]
    for name in ("step_00000004", "step_best"):
        assert located(run / "checkpoints" / name) == (run, run / "checkpoints" / name)
    with pytest.raises(ConfigError, match="has no complete checkpoint of step 5; it has those of 2, 4, 6"):
        located(folder_of(run, 5))
    resumed = parse_run_arguments(["--resume", str(folder_of(run, 4))])
    assert (resumed.output, resumed.resume, resumed.step, resumed.config.train.max_steps) == (run, "auto", 4, 9)
    with pytest.raises(ConfigError, match="is not a checkpoint of --output"):
        parse_run_arguments(["--resume", str(folder_of(run, 4)), "--output", "elsewhere"])


@pytest.mark.parametrize("resume", ["./run/", "run//", "run", "./checkpoint-2000/", "/", "", "~/run/checkpoints/"])
def test_what_is_no_checkpoint_is_one_line_with_or_without_a_configuration(resume):
    for others in ([], ["--config", "pipelines/configs/tiny.yaml"]):
        with pytest.raises(ConfigError, match="--resume takes auto, or a folder such as RUN/checkpoints/step_00002000"):
            parse_run_arguments([*others, "--resume", resume, "--train.max_steps", "1"])


def test_a_checkpoint_is_named_from_anywhere(run, monkeypatch):
    for folder, name in ((run, "checkpoints/step_00000004"), (run / "checkpoints", "./step_00000004/")):
        monkeypatch.chdir(folder)
        found = parse_run_arguments(["--resume", name])
        assert (found.output, found.step, found.config.train.max_steps) == (run, 4, 9)


def test_checkpoints_after_the_one_that_a_run_goes_on_from_do_not_count_any_more(run, capsys):
    set_later_aside(run, 2)
    assert names(run) == ["step_00000002", "step_00000004.aside", "step_00000006.aside"]
    assert "step_00000006 is kept as" in capsys.readouterr().err


def test_all_files_are_on_disk_before_the_marker(tmp_path, monkeypatch):
    """The order of the calls of fsync and rename, which a power cut leaves a beginning of."""
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: calls.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name) or fsync(fd)
    )
    monkeypatch.setattr(os, "replace", lambda a, b: calls.append(f"-> {b.name}") or replace(a, b))
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    folder = folder_of(tmp_path, 2)
    folder.mkdir(parents=True)
    own = partial(write_own, slice_file(folder, 0), {"weights/w": torch.ones(9)}, {})
    state = RunState(2, 2, 8, 0, "", 1, {}, {})
    seals = write_all(own, folder, {"mean": torch.zeros(1)}, state, tmp_path / "config.yaml")
    mark_complete(folder, {"files": seals})
    marked = calls.index(f"-> {COMPLETE}")
    assert seals.keys() == {path.name for path in folder.iterdir()} - {COMPLETE}
    before = {"rank_00000.part", "feature_scale.safetensors", "state.json", "config.yaml", folder.name, "COMPLETE.part"}
    assert before <= set(calls[:marked]) and calls[marked + 1 :] == [folder.name, "checkpoints", tmp_path.name]
