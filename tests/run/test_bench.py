"""The figures: that they can be measured, and those that are bounds whatever the machine."""

import time

import numpy as np
import pytest

from data_tools.shards import ROW, ShardReader
from data_tools.streaming.grouping import GroupedOrder
from data_tools.video import validate
from pipelines.benchmarks.data import moving_clip, resuming, write_large_index
from support.launch import checked, python


@pytest.fixture(scope="module")
def clip():
    return moving_clip(1.0, 12, 90, 160)


def test_the_bench_runs(clip):
    assert validate(clip).frames == 12
    result = checked(python("pipelines/bench.py", "data", "--quick", "--json"))
    assert '"name": "PyAV path / decord, CPU time"' in result.stdout


def test_a_run_resumes_at_once_in_an_index_of_five_million(clip, tmp_path):
    """160 MB of mapping a node, read as it is needed; next to nothing in each process."""
    far = resuming(tmp_path, clip)
    assert far["index_mb"] <= 200 and far["own_mb"] < 20
    assert far["open_s"] <= 1 and far["first_batch_s"] < 2


def test_grouping_resumes_at_once_too(clip, tmp_path):
    write_large_index(tmp_path, clip, 200_000)
    reader = ShardReader(tmp_path)
    assert reader.rows.dtype == ROW and len(reader) == 200_000
    started = time.perf_counter()
    order = GroupedOrder(reader.order(0), lambda rows: reader.facts(rows)["length"], 1600, 16, seed=0)
    rows = [order.row(position) for position in range(190_000, 190_016)]
    assert time.perf_counter() - started < 1 and len(np.unique(rows)) == 16
