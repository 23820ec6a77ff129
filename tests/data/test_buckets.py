"""Buckets: the nearest one, those chosen for a dataset, and the order of a run with them."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.recfunctions import repack_fields

from data_tools.buckets import Bucket, BucketedOrder, Bucketing, choose_buckets, read_bucket
from data_tools.buckets.nearest import distances
from data_tools.errors import DataError
from data_tools.inspect.index import index_shards
from data_tools.inspect.verify import verify_shards
from data_tools.order import RunOrder, RunSampler
from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from data_tools.shards import ROW, ShardReader
from data_tools.shards.layout import EARLIER_ROW
from data_tools.streaming.mixture import MixedOrder

FPS = 24
WIDE, HIGH, SQUARE = Bucket(320, 576, 121), Bucket(576, 320, 121), Bucket(432, 416, 121)
SHORT, IMAGE = Bucket(320, 576, 33), Bucket(320, 576, 1)


def facts_of(*clips):
    """Manifest rows of (width, height, seconds), or of None: a text."""
    rows = np.zeros(len(clips), dtype=ROW)
    for row, clip in zip(rows, clips):
        row["words"] = 8 if clip else 0
        if clip:
            row["width"], row["height"], row["duration"] = clip
            row["frames"] = 1 if clip[2] == 0 else 50
    return rows


def nearest(clips, buckets, fit="crop", seconds=5.0):
    return distances(facts_of(*clips), buckets, seconds, FPS, fit).argmin(axis=1).tolist()


def test_a_bucket_is_read_as_it_is_written():
    assert read_bucket("320x576x5", FPS) == WIDE and read_bucket("320x576x0", 24) == IMAGE
    assert read_bucket("320x576x4.99", FPS).frames == 121 and read_bucket("64x64x1", 30).frames == 29
    for frames in range(1, 400, 4):
        for fps in (8, 16, 23.976, 24, 29.97):
            bucket = Bucket(64, 96, frames)
            assert read_bucket(bucket.written(fps), fps) == bucket
    assert Bucket(64, 96, 33).written(24) == "64x96x1.33"


@pytest.mark.parametrize("text", ["320x576", "320x576x-1", "x576x5", "0x576x5", "320*576*5", "axbxc", "", "320x576x5s"])
def test_a_bucket_of_another_form_is_refused(text):
    with pytest.raises(DataError, match="HEIGHTxWIDTHxSECONDS"):
        read_bucket(text, FPS)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_each_clip_goes_to_the_bucket_it_fills(fit):
    clips = [(1280, 720, 6.0), (1080, 1920, 5.0), (1000, 1000, 9.0), (1920, 1080, 1.5), (800, 450, 0.0), None]
    assert nearest(clips, [WIDE, HIGH, SQUARE, SHORT, IMAGE], fit) == [0, 1, 2, 3, 4, 5]


def test_of_two_that_a_clip_fills_it_takes_the_larger_and_a_small_one_is_not_enlarged():
    small = Bucket(160, 288, 121)
    assert nearest([(1280, 720, 5), (576, 320, 5), (320, 180, 5), (290, 162, 5)], [WIDE, small]) == [0, 0, 1, 1]


def test_little_padding_is_better_than_cutting_most_of_a_clip():
    assert nearest([(1280, 720, 4.9), (1280, 720, 1.4), (1280, 720, 0.9)], [WIDE, IMAGE]) == [0, 1, 1]


CLIP = st.tuples(st.integers(16, 4000), st.integers(16, 4000), st.floats(0, 30))
BUCKET = st.builds(Bucket, *[st.integers(1, 60).map(lambda n: 16 * n)] * 2, st.integers(0, 30).map(lambda k: 4 * k + 1))


@settings(max_examples=100, deadline=None)
@given(clip=CLIP, others=st.lists(BUCKET, max_size=6), fit=st.sampled_from(["crop", "pad"]))
def test_a_bucket_of_a_clip_s_own_shape_is_at_no_distance(clip, others, fit):
    width, height, duration = clip
    own = Bucket(height, width, int(min(duration + 1e-3, 5) * FPS + 1e-6) // 4 * 4 + 1)
    far = distances(facts_of(clip), [own, *others], 5.0, FPS, fit)[0]
    assert far[0] == 0 and far[1:-1].min(initial=0) >= 0 and np.isinf(far[-1])


# ---------------------------------------------------------------- auto


def chosen(clips, **options):
    return choose_buckets(facts_of(*clips), WIDE, 5.0, FPS, "crop", **options)


def test_few_kinds_of_clips_get_a_bucket_each():
    clips = [(1280, 720, 8.0)] * 60 + [(720, 1280, 8.0)] * 30 + [(640, 480, 0.0)] * 20 + [None] * 5
    buckets = chosen(clips)
    assert WIDE in buckets and Bucket(576, 320, 121) in buckets and len(buckets) == 3
    assert [bucket.frames for bucket in buckets].count(1) == 1
    assert all(bucket.tokens(16) <= WIDE.tokens(16) for bucket in buckets)


def test_a_dataset_of_texts_has_the_largest_bucket_alone():
    assert chosen([None] * 3) == chosen([]) == [WIDE]


def test_the_budget_limits_every_bucket():
    clips = [(1280, 720, s) for s in np.linspace(0.2, 12, 300)] + [(720, 720, 3.0)] * 40
    for budget in (WIDE.tokens(16), 5000, 700):
        buckets = chosen(clips, budget=budget)
        assert 1 <= len(buckets) <= 24 and max(bucket.tokens(16) for bucket in buckets) <= budget
        assert max(bucket.tokens(16) for bucket in buckets) > budget / 2
        assert all(bucket.height % 16 == bucket.width % 16 == 0 for bucket in buckets)
    assert all(bucket.height % 32 == bucket.width % 32 == 0 for bucket in chosen(clips, side=32))


@settings(max_examples=40, deadline=None)
@given(clips=st.lists(st.none() | CLIP, min_size=1, max_size=60))
def test_auto_takes_any_dataset_and_pads_little(clips):
    buckets = chosen(clips)
    assert 1 <= len(buckets) <= 24 and len({*buckets}) == len(buckets)
    assert buckets == chosen(clips)
    drawn = [clip for clip in clips if clip]
    for number, (_, _, duration) in zip(nearest(drawn, buckets), drawn):
        own = int(min(duration + 1e-3, 5) * FPS + 1e-6) // 4 + 1
        assert buckets[number].latent_frames <= max(1.2 * own, own + 1 if len(buckets) == 24 else own)


# ---------------------------------------------------------------- the order


class Facts:
    """A reader of a manifest alone."""

    def __init__(self, rows):
        self.rows = rows

    def facts(self, rows):
        return self.rows[rows]


BUCKETS = [HIGH, SQUARE, WIDE, SHORT, IMAGE]
COSTS = np.array([100.0, 98.0, 100.0, 20.0, 3.0, 1.0])


def some_facts(samples, seed=0):
    draw = np.random.default_rng(seed)
    kinds = [(1280, 720, 5), (720, 1280, 5), (720, 720, 5), (1280, 720, 1.5), (640, 360, 0), None]
    rows = facts_of(*[kinds[number] for number in draw.integers(0, len(kinds), samples)])
    rows["words"] = np.where(rows["frames"] > 0, draw.integers(1, 90, samples), 0)
    return rows


def bucketing(samples, seed=0):
    return Bucketing(Facts(some_facts(samples, seed)), BUCKETS, 5.0, FPS, "crop", COSTS, 0.01)


@st.composite
def runs(draw):
    """(how to make the order, samples, window, global batch, unit), of one dataset or two."""
    seed, unit = draw(st.integers(0, 2**40)), draw(st.sampled_from([1, 2, 3, 4]))
    batch = unit * draw(st.integers(1, 8))
    window = batch * draw(st.integers(1, 9))
    sizes = draw(st.lists(st.integers(1, 70), min_size=1, max_size=2))
    whole = bucketing(sum(sizes), seed % 100)

    def order():
        own = [RunOrder(seed + number, [size]) for number, size in enumerate(sizes)]
        plain = own[0] if len(own) == 1 else MixedOrder(seed, own, sizes, [1.0, 2.0])
        return BucketedOrder(plain, whole, window, batch, unit, seed)

    return order, window, batch, unit


@settings(max_examples=40, deadline=None)
@given(run=runs())
def test_a_window_holds_the_samples_of_the_plain_order_and_epochs_stay_whole(run):
    make, window, _, _ = run
    order = make()
    starts = 0
    for number in range(3):
        positions = range(number * window, (number + 1) * window)
        cuts = [p for p in positions if p > positions[0] and order.starts_epoch(p)]
        for start, end in zip([positions[0], *cuts], [*cuts, positions[-1] + 1]):
            piece = range(start, end)
            assert sorted(map(order.row, piece)) == sorted(map(order.order.row, piece))
            starts += 1
    assert starts >= 3


@settings(max_examples=40, deadline=None)
@given(run=runs(), data=st.data())
def test_the_order_is_the_same_for_any_ranks_and_any_point_of_resuming(run, data):
    make, _, batch, unit = run
    micro = data.draw(st.sampled_from([m for m in range(1, unit + 1) if unit % m == 0]))
    world = data.draw(st.sampled_from([w for w in range(1, 17) if batch % (w * micro) == 0]))
    resumed, count = data.draw(st.integers(0, 40)), 3
    steps = batch // (world * micro) * count
    fresh, again = make(), make()
    expected = [(fresh.row(p), fresh.bucket(p)) for p in range(resumed * batch, (resumed + count) * batch)]
    ranks = [islice(RunSampler(batch, micro, rank, world, resumed * batch), steps) for rank in range(world)]
    micro_batches = [positions for step in zip(*ranks) for positions in step]
    assert [(again.row(p), again.bucket(p)) for own in micro_batches for p in own] == expected
    for own in micro_batches:
        assert len({again.bucket(position) for position in own}) == 1


@settings(max_examples=40, deadline=None)
@given(run=runs())
def test_a_sample_goes_to_its_nearest_bucket_but_in_chunks_that_cannot_be_filled(run):
    make, window, _, unit = run
    order = make()
    wanted = order.bucketing.distances(np.arange(len(order.bucketing.reader.rows))).argmin(axis=1)
    moved = [p for p in range(window) if order.bucket(p) != wanted[order.row(p)]]
    epochs = 1 + sum(order.starts_epoch(position) for position in range(1, window))
    assert len(moved) <= epochs * (len(COSTS) + 2) * (unit - 1)
    assert unit > 1 or not moved
    for position in moved:  # a clip is never drawn as a text; a text may take part in any bucket
        assert wanted[order.row(position)] == len(BUCKETS) or order.bucket(position) < len(BUCKETS)


@settings(max_examples=40, deadline=None)
@given(run=runs(), data=st.data())
def test_the_slowest_ranks_of_all_micro_steps_take_little_more_than_the_mean(run, data):
    """Beyond the mean, all of a window together: the costliest micro-batch, once an epoch."""
    make, window, batch, unit = run
    order = make()
    micro = data.draw(st.sampled_from([m for m in range(1, unit + 1) if unit % m == 0]))
    world = data.draw(st.sampled_from([w for w in range(1, 17) if batch % (w * micro) == 0]))
    costs = order.costs(range(window)).reshape(-1, world, micro).sum(axis=2)
    epochs = 1 + sum(order.starts_epoch(position) for position in range(1, window))
    # The chunks at either end of an epoch, and a micro-step that spans two epochs, are not sorted with the others.
    allowed = costs.max() * (1 if epochs == 1 else 5 * epochs)
    assert costs.max(axis=1).sum() <= costs.mean(axis=1).sum() + allowed


@pytest.mark.parametrize("world", [2, 4, 8, 16])
def test_of_many_samples_the_slowest_rank_has_a_tenth_more_than_the_mean_at_most(world):
    plain = RunOrder(0, [4096])
    order = BucketedOrder(plain, bucketing(4096), 2048, 16, 1, 0)
    found = order.costs(range(4096)).reshape(-1, world)
    rows = [plain.row(position) for position in range(4096)]
    far = order.bucketing.distances(np.array(rows)).argmin(axis=1)
    before = COSTS[far].reshape(-1, world)
    assert found.max(axis=1).sum() <= 1.03 * found.mean(axis=1).sum()
    assert before.max(axis=1).sum() > 1.3 * before.mean(axis=1).sum()


def test_batches_differ_in_cost_and_come_in_no_order():
    order = BucketedOrder(RunOrder(0, [4096]), bucketing(4096), 2048, 16, 1, 0)
    means = order.costs(range(2048)).reshape(-1, 16).mean(axis=1)
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.25 and np.ptp(means) > 50


def test_the_order_is_pinned():
    """A changed order would silently break the resumption of every run that is under way."""
    order = BucketedOrder(RunOrder(1, [9, 8]), bucketing(17), 12, 4, 2, 1)
    assert [order.row(position) for position in range(12)] == [14, 0, 2, 9, 4, 5, 6, 7, 10, 1, 12, 13]
    assert [order.bucket(position) for position in range(0, 12, 2)] == [5, 4, 1, 2, 3, 3]


def test_a_manifest_of_an_earlier_version_is_read_and_written_anew_by_index(tmp_path):
    """It knew no sizes of frames: only buckets need them."""
    render_clips(tmp_path / "clips", 2, seed=0, frames=8, size=32)
    build_shards(tmp_path / "clips", tmp_path / "out", progress=False)
    path = tmp_path / "out" / "manifest.npy"
    rows = np.load(path)
    assert rows["width"].tolist() == rows["height"].tolist() == [32, 32]
    np.save(path, repack_fields(rows[list(EARLIER_ROW.fields)]))
    reader = ShardReader(tmp_path / "out")
    assert reader.read(1).meta["facts"]["frames"] == 8
    facts = reader.facts(np.arange(2))
    assert facts.dtype == ROW and facts["frames"].tolist() == [8, 8] and not facts["width"].any()
    assert verify_shards(tmp_path / "out").faults == []
    with pytest.raises(DataError, match="vtok-shards index"):
        distances(facts, [WIDE], 5.0, FPS, "crop")
    index_shards(tmp_path / "out")
    assert np.array_equal(np.load(path), rows)
