"""The order of samples: a permutation, dealt alike to any number of ranks, resumable anywhere."""

import time
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.draws import Draws
from data_tools.errors import DataError
from data_tools.order import RunOrder, RunSampler, epoch_order

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any)


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 2**62), epoch=st.integers(0, 9), streams=st.integers(1, 9))
def test_an_epoch_is_a_permutation(sizes, seed, epoch, streams):
    order = epoch_order(seed, epoch, sizes, streams=streams, block=7)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(sum(sizes)))


def test_the_order_is_pinned():
    """A changed order would silently break the resumption of every run that is under way."""
    assert epoch_order(17, 3, [4, 3, 5], streams=2, block=5).tolist() == [5, 2, 7, 10, 6, 0, 8, 11, 4, 1, 9, 3]
    assert epoch_order(17, 3, [4, 3, 5]).tolist() == [10, 5, 2, 7, 6, 8, 4, 11, 9, 1, 0, 3]


def test_small_datasets_are_shuffled_too():
    first = {tuple(epoch_order(0, epoch, [4])) for epoch in range(200)}
    assert len(first) == 24


def test_seed_and_epoch_each_change_the_order():
    first = epoch_order(0, 0, [50] * 20)
    assert (first == epoch_order(0, 0, [50] * 20)).all()
    for other in (epoch_order(1, 0, [50] * 20), epoch_order(0, 1, [50] * 20)):
        assert (first != other).mean() > 0.9


def test_few_shards_are_in_use_at_once():
    shard = epoch_order(0, 0, [100] * 200, streams=4, block=200) // 100
    in_use = [len(set(shard[at : at + 800])) for at in range(0, len(shard), 800)]
    assert max(in_use) == 4 * 2  # two shards to a block


def test_five_million_rows_take_less_than_two_seconds():
    start = time.process_time()
    order = epoch_order(0, 0, [1000] * 5000)
    assert time.process_time() - start < 2
    assert order.sum() == 5_000_000 * 4_999_999 // 2


def test_the_run_is_endless_and_every_epoch_whole():
    run = RunOrder(5, [3, 4])
    rows = [run.row(position) for position in range(70)]
    for start in range(0, 70, 7):
        assert sorted(rows[start : start + 7]) == list(range(7))
    assert len({tuple(rows[start : start + 7]) for start in range(0, 70, 7)}) > 5
    assert [run.row(position) for position in (69, 0, 35, 34)] == [rows[p] for p in (69, 0, 35, 34)]


def test_an_empty_dataset_is_refused():
    with pytest.raises(DataError, match="no samples"):
        RunOrder(0, [])


def global_batches(world, micro, global_batch=12, consumed=0, batches=4):
    """What the ranks yield, put together in the order of accumulation step and rank."""
    steps = global_batch // (world * micro) * batches
    ranks = [list(islice(RunSampler(global_batch, micro, r, world, consumed), steps)) for r in range(world)]
    return [position for step in range(steps) for rank in ranks for position in rank[step]]


@pytest.mark.parametrize("world, micro", [(1, 1), (1, 12), (2, 3), (3, 2), (4, 1), (6, 2), (12, 1)])
def test_any_split_gives_the_same_batches(world, micro):
    assert global_batches(world, micro) == list(range(48))


@pytest.mark.parametrize("world, micro", [(1, 4), (3, 2)])
def test_resuming_gives_the_rest(world, micro):
    assert global_batches(world, micro, consumed=24, batches=2) == global_batches(world, micro)[24:]


def test_a_batch_may_be_larger_than_the_dataset():
    run, positions = RunOrder(0, [5]), global_batches(2, 2, global_batch=12, batches=1)
    rows = [run.row(position) for position in positions]
    assert len(rows) == 12
    assert sorted(rows[:5]) == sorted(rows[5:10]) == list(range(5))


def test_the_end_leaves_only_full_batches():
    assert list(RunSampler(4, 2, 0, 1, end=11)) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert list(RunSampler(4, 2, 1, 2, consumed_samples=4, end=8)) == [[6, 7]]
    assert list(RunSampler(4, 2, 0, 1, end=3)) == []


@pytest.mark.parametrize("arguments", [(12, 5, 0, 1), (12, 2, 0, 4), (12, 2, 2, 2), (0, 1, 0, 1)])
def test_batches_that_cannot_be_dealt_are_refused(arguments):
    with pytest.raises(DataError):
        RunSampler(*arguments)


def test_draws_depend_on_seed_position_and_purpose_only():
    draws = Draws(3, 14)
    assert draws.seed("crop") == Draws(3, 14).seed("crop") == Draws(np.int64(3), 14).seed("crop")
    others = [Draws(4, 14).seed("crop"), Draws(3, 15).seed("crop"), draws.seed("window"), draws.seed("crop")]
    assert len(set(others)) == 4
    assert 0 <= draws.seed("crop") < 2**63


def test_draws_are_uniform():
    values = np.array([Draws(0, position).uniform("x") for position in range(4000)])
    assert 0 <= values.min() and values.max() < 1
    assert np.histogram(values, bins=10, range=(0, 1))[0].min() > 320
    assert {Draws(0, position).integer("n", 3) for position in range(50)} == {0, 1, 2}
