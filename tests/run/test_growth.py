"""Data that grow under a run: it goes on over all of them, if that is asked for, and what it reads is recorded."""

import shutil

import pytest

from data_tools.inspect.index import index_shards
from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from data_tools.shards import ShardReader
from data_tools.streaming.mixture import Mixture
from pipelines import train
from pipelines.engine.batch_plan import batch_digest
from pipelines.engine.saving import checkpoint
from pipelines.engine.saving.folders import newest
from support.commands import called
from support.launch import assert_user_error, checked
from support.runs import log_of


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two datasets of shapes: eight clips and six others."""
    folder = tmp_path_factory.mktemp("parts")
    for name, clips, seed in (("old", 8, 3), ("new", 6, 4)):
        render_clips(folder / f"{name}_clips", clips, seed=seed)
        build_shards(folder / f"{name}_clips", folder / name, samples_per_shard=4, progress=False)
    return folder


def grow(shards, new):
    """Adds all tars of another dataset behind those of a dataset."""
    for tar in new.glob("*.tar"):
        shutil.copy(tar, shards / f"z-{tar.name}")
    index_shards(shards)


def digests(reader, steps, size):
    """Of the batches of steps from 1 on, by the order that seed and data alone give."""
    order = reader.order(0)
    return {
        step: batch_digest([reader.key(order.row(p)) for p in range((step - 1) * size, step * size)]) for step in steps
    }


@pytest.mark.slow
def test_a_run_goes_on_over_shards_that_were_added(parts, tmp_path):
    shards, output = tmp_path / "shards", tmp_path / "out"
    shutil.copytree(parts / "old", shards)
    command = (
        train.main, "--config", "pipelines/configs/tiny.yaml", "--data.shards", shards, "--data.seconds", 1,
        "--data.workers", 0, "--train.global_batch_size", 4, "--train.calibration_batches", 1, "--resume", "auto",
        "--output", output,
    )  # fmt: skip
    checked(called(*command, "--train.max_steps", 2))
    before = ShardReader(shards)
    grow(shards, parts / "new")
    after = ShardReader(shards)
    assert (len(before), len(after)) == (8, 14)
    assert_user_error(called(*command, "--train.max_steps", 4), "the data have grown", "--data.allow_growth true")
    more = checked(called(*command, "--train.max_steps", 4, "--data.allow_growth", "true"))
    assert "the data grew after 8 samples; now they are 14" in more.stdout
    checked(called(*command, "--train.max_steps", 5))  # as recorded, without the option
    expected = digests(before, (1, 2), 4) | digests(after, (3, 4, 5), 4)
    assert {line["step"]: line["batch_digest"] for line in log_of(output)} == expected
    state = checkpoint.read_state(newest(output))
    assert state.grown == [[8, before.manifest_hash]] and state.manifest_hash == after.manifest_hash


def test_what_data_have_grown_from(parts, tmp_path):
    """Shards behind those of a dataset, datasets behind those of a mixture; nothing else."""
    old, new = ShardReader(parts / "old"), ShardReader(parts / "new")
    shutil.copytree(parts / "old", tmp_path / "both")
    grow(tmp_path / "both", parts / "new")
    both = ShardReader(tmp_path / "both")
    assert old.manifest_hash in both.earlier_hashes() and new.manifest_hash not in both.earlier_hashes()
    assert both.manifest_hash not in both.earlier_hashes() | old.earlier_hashes()
    mixture = Mixture([old, new])
    assert old.manifest_hash in mixture.earlier_hashes() and new.manifest_hash not in mixture.earlier_hashes()
    assert mixture.manifest_hash in Mixture([old, new, both]).earlier_hashes()
    assert mixture.manifest_hash not in Mixture([old, new, both], [1, 1, 1]).earlier_hashes()
    assert mixture.manifest_hash not in mixture.earlier_hashes() | Mixture([new, old]).earlier_hashes()
