"""The sequence of a run, whatever it is made of: every sample once an epoch, the same batches for anyone who reads."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from data_tools.errors import DataError
from data_tools.order import RunOrder, RunSampler
from data_tools.shards import RawSample, ShardReader, write_manifest, write_shard
from data_tools.streaming.grouping import GroupedOrder, estimated_tokens, group
from data_tools.streaming.mixture import MixedOrder, Mixture

SIZES = st.lists(st.integers(0, 23), min_size=1, max_size=6).filter(any)


def length_of(rows):
    return rows * 7919 % 31


class Rows(Dataset):
    """position → (position, row), as a ClipDataset without clips."""

    def __init__(self, order):
        self.order = order

    def __getitem__(self, position):
        return position, self.order.row(position)


@st.composite
def runs(draw):
    """(how to make the order, epochs' lengths, global batch): one dataset or a mixture, grouped or not."""
    seed, batch = draw(st.integers(0, 2**40)), draw(st.integers(1, 16)) * draw(st.sampled_from([1, 2, 6]))
    datasets = draw(st.lists(SIZES, min_size=1, max_size=3))
    weights = draw(st.lists(st.floats(0.1, 10), min_size=len(datasets), max_size=len(datasets)))
    window = batch * draw(st.integers(0, 5))

    def order():
        own = [RunOrder(seed + number, sizes) for number, sizes in enumerate(datasets)]
        counts = [sum(sizes) for sizes in datasets]
        whole = own[0] if len(own) == 1 else MixedOrder(seed, own, counts, weights)
        return GroupedOrder(whole, length_of, window, batch, seed) if window else whole

    return order, [sum(sizes) for sizes in datasets], batch


def splits(batch):
    """(ranks, micro-batch) that deal a global batch to at most 16 ranks."""
    return [(w, m) for w in range(1, 17) for m in range(1, batch + 1) if batch % (w * m) == 0]


def batches(order, batch, world, micro, consumed, count):
    """Rows of the next `count` global batches, put together from what the ranks read."""
    steps = batch // (world * micro) * count
    ranks = [islice(RunSampler(batch, micro, rank, world, consumed), steps) for rank in range(world)]
    return [[order.row(p) for mine in step for p in mine] for step in zip(*ranks)]


@settings(max_examples=60, deadline=None)
@given(run=runs(), data=st.data())
def test_every_sample_comes_once_an_epoch(run, data):
    order, sizes, _ = run
    order = order()
    rows = np.array([order.row(position) for position in range(3 * sum(sizes) + 40)])
    ends = np.cumsum(sizes)
    for end, size in zip(ends, sizes):
        mine = rows[(rows >= end - size) & (rows < end)]
        for epoch in range(len(mine) // size):
            assert sorted(mine[epoch * size : (epoch + 1) * size]) == list(range(end - size, end))
    if len(sizes) == 1:
        assert len(rows) // sizes[0] >= 3


@settings(max_examples=50, deadline=None)
@given(run=runs(), data=st.data())
def test_a_batch_is_the_same_for_any_ranks_and_any_point_of_resuming(run, data):
    order, _, batch = run
    world, micro = data.draw(st.sampled_from(splits(batch)))
    resumed, count = data.draw(st.integers(0, 40)), 3
    expected = [order().row(p) for p in range(resumed * batch, (resumed + count) * batch)]
    found = batches(order(), batch, world, micro, resumed * batch, count)
    assert [row for step in found for row in step] == expected


@settings(max_examples=8, deadline=None)
@given(run=runs(), workers=st.integers(0, 4), data=st.data())
def test_real_processes_read_the_same(run, workers, data):
    """The DataLoader's own worker processes, at a drawn split and a drawn point of resuming."""
    order, _, batch = run
    world, micro = data.draw(st.sampled_from(splits(batch)))
    consumed, rank = batch * data.draw(st.integers(0, 30)), data.draw(st.integers(0, world - 1))
    end = consumed + 3 * batch
    sampler = RunSampler(batch, micro, rank, world, consumed, end)
    loader = DataLoader(Rows(order()), batch_sampler=sampler, num_workers=workers, collate_fn=list)
    fresh = order()
    expected = [[(p, fresh.row(p)) for p in step] for step in RunSampler(batch, micro, rank, world, consumed, end)]
    assert list(loader) == expected


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=5), start=st.integers(0, 10**9))
def test_a_mixture_keeps_the_weights_in_every_stretch(weights, start):
    order = MixedOrder(3, [RunOrder(0, [9])] * len(weights), [9] * len(weights), weights)
    found = [order.locate(position) for position in range(start, start + 200)]
    for dataset, weight in enumerate(weights):
        own = [place for number, place in found if number == dataset]
        assert own == list(range(own[0], own[0] + len(own))) if own else True  # its own sequence, without a gap
        assert abs(len(own) - 200 * weight / sum(weights)) < len(weights)


def test_a_mixture_begins_each_dataset_at_its_beginning():
    order = MixedOrder(11, [RunOrder(0, [9])] * 3, [9] * 3, [3, 1, 0.5])
    first = {}
    for position in range(40):
        first.setdefault(*order.locate(position))
    assert first == {0: 0, 1: 0, 2: 0}


def test_groups_are_of_like_length_and_in_no_order():
    plain = RunOrder(0, [4000])
    grouped = GroupedOrder(plain, length_of, window=512, batch=8, seed=0)

    def spread(order):
        lengths = length_of(np.array([order.row(p) for p in range(2048)])).reshape(-1, 8)
        return np.ptp(lengths, axis=1).mean(), lengths.mean(axis=1)

    (before, _), (after, means) = spread(plain), spread(grouped)
    assert after < 0.1 * before
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_grouping_is_pinned():
    """A changed order would silently break the resumption of every run that is under way."""
    order = GroupedOrder(RunOrder(1, [5, 4]), length_of, window=6, batch=3, seed=1)
    assert [order.row(position) for position in range(12)] == [8, 6, 4, 0, 5, 1, 7, 3, 2, 5, 8, 4]
    assert group(np.array([3, 1, 2, 0]), np.array([2, 2]), key=0).tolist() == [2, 0, 3, 1]


def test_a_mixture_is_pinned():
    order = MixedOrder(1, [RunOrder(0, [9])] * 2, [9, 9], [2, 1])
    assert [order.locate(position)[0] for position in range(12)] == [1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0]


def write(folder, samples, first=0):
    folder.mkdir()
    for shard in range(2):
        numbers = range(shard * samples // 2, (shard + 1) * samples // 2)
        write_shard(folder, shard, [sample(first + number) for number in numbers])
    write_manifest(folder)
    return ShardReader(folder)


def sample(number):
    meta = {
        "caption": "A ball " * (number % 5) or "Nothing.",
        "path": "x",
        "facts": {"frames": 20, "duration": 1.0 + number},
    }
    return RawSample(f"{number:09d}", b"video %d" % number, ".mp4", meta)


def test_a_mixture_of_datasets_reads_as_one(tmp_path):
    readers = [write(tmp_path / "a", 6), write(tmp_path / "b", 4, first=10)]
    mixture = Mixture(readers)
    assert len(mixture) == 10
    assert [mixture.read(row).video for row in (0, 5, 6, 9)] == [b"video 0", b"video 5", b"video 10", b"video 13"]
    assert [mixture.key(row) for row in (5, 6)] == ["0/000000005", "1/000000010"]
    assert [mixture.read(row).key for row in (5, 6)] == ["0/000000005", "1/000000010"]
    assert mixture.facts(np.array([9, 0, 6]))["duration"].tolist() == [14.0, 1.0, 11.0]
    order = mixture.order(seed=5)  # without weights, by size
    assert sorted(order.row(position) for position in range(10)) == list(range(10))
    hashes = {Mixture(r, w).manifest_hash for r, w in [(readers, None), (readers, [1, 1]), (readers[::-1], None)]}
    assert len(hashes) == 3


def test_a_dataset_without_samples_is_refused_in_a_mixture(tmp_path):
    reader = write(tmp_path / "a", 2)
    empty = write(tmp_path / "b", 2)
    empty.rows = empty.rows[:0]
    with pytest.raises(DataError, match="b holds no samples"):
        Mixture([reader, empty])


def test_lengths_come_from_the_manifest(tmp_path):
    lengths = partial(estimated_tokens, write(tmp_path / "a", 6), 3.0, 6.0)
    rows = np.array([0, 2, 4])
    assert lengths(rows).tolist() == [6 + round(1 * 4 / 3), 18 + round(4 * 4 / 3), 18 + round(8 * 4 / 3)]
