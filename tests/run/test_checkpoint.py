"""The parts of a checkpoint that need no engine: slices in files, and which folders stay."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import CheckpointConfig
from pipelines.engine.saving.checkpoint import COMPLETE, complete, folder_of, step_of
from pipelines.engine.saving.slices import SliceReader, slice_file, write_slices
from pipelines.engine.saving.writing import mark_complete, remove_old


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
        with pytest.raises(ValueError, match="elements 100 to 101"):
            stored.read_into(torch.empty(11), "weights/w", 90)
    assert not list(cut_in_three.glob("*.part"))


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
