"""The dataset: a sample is a pure function of (seed, position, data), whoever asks for it."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data_tools.dataset import MAX_ATTEMPTS, ClipDataset
from data_tools.draws import Draws
from data_tools.errors import DataError
from data_tools.order import RunOrder, RunSampler
from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from data_tools.shards import RawSample, ShardReader, write_manifest, write_shard
from data_tools.video.views import View

SECONDS = 1.0
TOKENISER, DECODER = View(4, 5, 28, 28), View(8, 9, 32, 48)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    render_clips(folder / "clips", 10, seed=0)
    build_shards(folder / "clips", folder / "shards", samples_per_shard=4, progress=False)
    return folder / "shards"


def dataset(folder, **options):
    settings = {"seed": 3, "seconds": SECONDS, "tokeniser_view": TOKENISER}
    return ClipDataset(ShardReader(folder), **settings | options)


def copy(folder, target):
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def corrupt(folder, rows):
    reader = ShardReader(folder)
    for row in rows:
        shard, offset = reader.rows["shard"][row], int(reader.rows["offset"][row])
        path = folder / f"{reader.shard_names[shard]}.tar"
        data = bytearray(path.read_bytes())
        data[offset + 600] ^= 255
        path.write_bytes(data)


def same(first, second):
    return (first.position, first.key, first.start, first.caption, first.replaced) == (
        second.position,
        second.key,
        second.start,
        second.caption,
        second.replaced,
    ) and torch.equal(first.frames, second.frames)


def test_one_of_several_questions_is_drawn(tmp_path, built):
    reader = ShardReader(built)
    pairs = [["What?", "That."], ["Where?", "There."], ["When?", "Then."]]
    raw = reader.read(0)
    write_shard(tmp_path, 0, [replace(raw, meta=raw.meta | {"conversations": pairs})])
    write_manifest(tmp_path)
    drawn = [dataset(tmp_path)[position] for position in range(20)]
    assert {(sample.question, sample.answer) for sample in drawn} == {tuple(pair) for pair in pairs}
    assert [dataset(tmp_path)[position].question for position in range(20)] == [sample.question for sample in drawn]


def test_a_sample_holds_both_views_and_the_texts(built):
    sample = dataset(built, decoder_view=DECODER)[0]
    assert sample.frames.shape == (5, 3, 28, 28) and sample.frames.dtype == torch.uint8
    assert sample.video.shape == (9, 3, 32, 48) and sample.video.dtype == torch.uint8
    assert (sample.frames_valid, sample.video_valid) == (5, 9)
    meta = ShardReader(built).read(int(sample.key)).meta
    assert (sample.caption, sample.question, sample.answer) == (
        meta["caption"],
        meta.get("question"),
        meta.get("answer"),
    )
    assert sample.draws == Draws(3, 0) and sample.replaced == ()


def test_without_a_decoder_view_there_is_no_video(built):
    sample = dataset(built)[0]
    assert sample.video is None and sample.video_valid == 0


def test_clips_that_killed_processes_are_replaced_like_bad_ones(built):
    data, sound = dataset(built), dataset(built)[3]
    data.crashes = {3: 2}
    sample = data[3]
    assert sample.replaced[0] == (sound.key, "decoder_crash") and len(sample.replaced) == 2
    third = Draws(3, 3).integer("substitute-2", len(data))
    assert sample.key == data.reader.key(third)


def test_training_follows_the_run_order_past_the_end(built):
    data, order = dataset(built), RunOrder(3, ShardReader(built).shard_sizes)
    assert len(data) == 10
    assert [int(data[position].key) for position in range(25)] == [order.row(position) for position in range(25)]


def test_the_window_is_drawn_in_training_and_centred_otherwise(built):
    starts = np.array([dataset(built)[position].start for position in range(20)])
    assert len(set(starts)) == 20 and 0 <= starts.min() and starts.max() < 2
    validation = dataset(built, training=False)
    assert [validation[position].start for position in (0, 5)] == [1.0, 1.0]


def test_validation_goes_row_by_row_and_wraps(built):
    validation = dataset(built, training=False)
    assert [int(validation[position].key) for position in (0, 4, 9, 10, 13)] == [0, 4, 9, 0, 3]


def test_another_seed_is_another_run(built):
    first, second = dataset(built), dataset(built, seed=4)
    assert [first[p].key for p in range(10)] != [second[p].key for p in range(10)]
    assert first[0].start != second[0].start


@pytest.mark.parametrize("consumed", [0, 24])
def test_workers_give_the_same_sequence(built, consumed):
    def samples(workers):
        sampler = RunSampler(4, 2, rank=1, world_size=2, consumed_samples=consumed)
        loader = DataLoader(dataset(built), batch_sampler=sampler, num_workers=workers, collate_fn=list)
        return [sample for batch in islice(loader, 6) for sample in batch]

    alone, shared = samples(0), samples(2)
    assert [sample.position for sample in alone][:6] == [consumed + offset for offset in (2, 3, 6, 7, 10, 11)]
    assert len(alone) == 12 and all(map(same, alone, shared))


def test_a_bad_clip_is_replaced_alike_every_time_and_only_it(built, tmp_path):
    damaged = copy(built, tmp_path / "damaged")
    sound = dataset(built)
    bad_row = sound.order.row(2)
    corrupt(damaged, [bad_row])
    data = dataset(damaged)
    for position in range(10):
        sample = data[position]
        assert same(sample, dataset(damaged)[position])
        if position != 2:
            assert same(sample, sound[position])
            continue
        assert sample.replaced[0] == (f"{bad_row:09d}", "corrupt_shard")
        assert int(sample.key) == Draws(3, 2).integer(f"substitute-{len(sample.replaced)}", 10) != bad_row
        assert sample.position == 2 and sample.draws == Draws(3, 2)


def test_a_clip_that_does_not_decode_is_replaced_too(built, tmp_path):
    samples = [ShardReader(built).read(row) for row in range(10)]
    broken = samples[7].video[: len(samples[7].video) // 3]
    samples[7] = RawSample(samples[7].key, broken, ".mp4", samples[7].meta)
    write_shard(tmp_path, 0, samples)
    write_manifest(tmp_path)
    sample = dataset(tmp_path, training=False)[7]
    assert sample.replaced[0] == ("000000007", "truncated") and sample.key != "000000007"


def test_too_many_bad_clips_stop_the_run_by_name(built, tmp_path):
    damaged = copy(built, tmp_path / "damaged")
    corrupt(damaged, range(10))
    with pytest.raises(DataError) as caught:
        dataset(damaged)[0]
    first = dataset(built).order.row(0)
    assert f"{first:09d} (corrupt_shard)" in str(caught.value)
    assert str(caught.value).count("corrupt_shard") == MAX_ATTEMPTS
    assert "\n" not in str(caught.value)


def test_one_of_several_captions_is_drawn(built, tmp_path):
    raw = ShardReader(built).read(0)
    wordings = ["One.", "Two.", "Three."]
    write_shard(tmp_path, 0, [RawSample(raw.key, raw.video, ".mp4", raw.meta | {"captions": wordings})])
    write_manifest(tmp_path)
    drawn = [dataset(tmp_path)[position].caption for position in range(20)]
    assert set(drawn) == set(wordings)
    assert drawn == [dataset(tmp_path)[position].caption for position in range(20)]


def test_the_transform_runs_on_the_sample(built):
    assert dataset(built, transform=lambda sample: sample.position)[6] == 6
