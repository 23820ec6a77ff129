"""What becomes of a run's loader processes and of the samples they cannot read."""

import json

import pytest
import torch

from data_tools.errors import DataError
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.loading import loader
from pipelines.engine.loading.bad_samples import BadSamples
from pipelines.engine.loading.workers import LoaderError, WatchedDataset, deaths_explained
from support.launch import python


class Clips:
    """A ClipDataset of which position 5 cannot be read."""

    def __getitem__(self, position):
        if position == 5:
            raise DataError("position 5: none of 8 clips can be read")
        return torch.tensor(position)


# A process of its own: a worker's death leaves torch's handler of signals in a state that other tests should not meet.
DEATH = """
import os, signal
from torch.utils.data import DataLoader
from pipelines.cli.errors import die
from pipelines.engine.loading.workers import LoaderError, WatchedDataset, deaths_explained

class Clips:
    class reader:
        def key(row): return f"key-{row}"
    def row(self, position): return position + 100
    def __getitem__(self, position):
        if position == 5:
            FATE
        return position

dataset = WatchedDataset(Clips(), workers=2)
try:
    with deaths_explained(dataset):
        for _ in DataLoader(dataset, batch_size=1, sampler=range(20), num_workers=2):
            pass
except LoaderError as error:
    die("vtok-train", error)
"""


@pytest.mark.parametrize("fate", ["os.kill(os.getpid(), signal.SIGSEGV)", "os._exit(3)"])
def test_a_worker_s_death_names_its_clip(fate, tmp_path):
    (tmp_path / "death.py").write_text(DEATH.replace("FATE", fate))
    result = python(tmp_path / "death.py")
    # Torch ends its own word about a segmentation fault with a zero byte, not with a line.
    (line,) = [line for line in result.stderr.split("\0") for line in line.splitlines() if ": error: " in line]
    assert result.returncode == 2
    assert "a loader process died at position 5, clip key-105 (or a substitute" in line


def test_other_errors_pass_unchanged():
    with pytest.raises(RuntimeError, match="^something else$"), deaths_explained(WatchedDataset(Clips(), 1)):
        raise RuntimeError("something else")


def first_error_or_all(items):
    return next((item for item in items if isinstance(item, DataError)), items)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_sample_is_one_line_without_a_traceback(workers):
    plan = plan_batch(2, 2, 1)
    batches = loader.micro_batches(WatchedDataset(Clips(), workers), plan, workers, collate=first_error_or_all)
    assert [len(next(batches)) for _ in range(2)] == [2, 2]
    with pytest.raises(LoaderError) as caught:
        next(batches)
    assert str(caught.value) == "position 5: none of 8 clips can be read"


def test_bad_samples_are_counted_on_after_resuming(tmp_path):
    bad = BadSamples(tmp_path, max_share=0.003, step=0)
    bad.record(3, [(10, "a", "corrupt"), (11, "b", "corrupt")])
    assert bad.record(7, [(30, "c", "corrupt")]) == 3
    resumed = BadSamples(tmp_path, max_share=0.003, step=5)
    assert resumed.record(6, []) == 2
    assert [json.loads(line)["key"] for line in resumed.path.read_text().splitlines()] == ["a", "b"]
    resumed.record(6, [(25, "d", "corrupt"), (26, "e", "corrupt")])
    resumed.check(2000)
    with pytest.raises(DataError, match="4 of 100 samples could not be read.*the latest are a, b, d, e"):
        resumed.check(100)
    assert BadSamples(tmp_path, max_share=1, step=0).record(1, []) == 0  # a run that begins anew
