"""Shards: what is written is what is read, by us and by webdataset, and damage is noticed."""

import hashlib
import json
import multiprocessing
import os
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import webdataset

from data_tools.errors import BadVideo, DataError
from data_tools.inspect.verify import verify_shards
from data_tools.shards import ROW, RawSample, ShardReader, atomic_write, write_manifest, write_shard
from data_tools.shards.reader import _plain_sample
from data_tools.shards.samples import to_members


def sample(number, caption="A ball."):
    video = np.random.default_rng(number).bytes(300 + 100 * number)
    meta = {"caption": caption, "path": f"a.b.{number}.mp4", "facts": {"frames": 10 + number, "duration": 1.25}}
    return RawSample(f"{number:09d}", video, ".mp4" if number % 2 else ".webm", meta | {"question": "Où ?"})


SAMPLES = [sample(number) for number in range(7)]


def write(folder, samples=SAMPLES, per_shard=3):
    folder.mkdir()
    for number, start in enumerate(range(0, len(samples), per_shard)):
        write_shard(folder, number, samples[start : start + per_shard])
    write_manifest(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "shards")


def damage(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_every_row_is_read_back(folder):
    reader = ShardReader(folder)
    assert len(reader) == 7 and reader.shard_sizes == [3, 3, 1]
    assert [reader.read(row) for row in range(7)] == SAMPLES
    assert [reader.key(row) for row in range(7)] == [sample.key for sample in SAMPLES]


def test_the_rows_are_small_mapped_and_say_what_is_in_the_shards(folder):
    rows = ShardReader(folder).rows
    assert isinstance(rows, np.memmap) and rows.dtype == ROW and ROW.itemsize <= 40  # 5 M samples take at most 200 MB
    assert rows["shard"].tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert rows["frames"].tolist() == [10, 11, 12, 13, 14, 15, 16]
    assert (rows["duration"] == 1.25).all()


@pytest.mark.parametrize("length", [80, 97, 130, 300])
@pytest.mark.parametrize("folders", ["", "a/b/"])
def test_long_keys_are_written_and_read_back(tmp_path, length, folders):
    """As those of an indexed tar of another tool, with what precompute.py adds."""
    extras = {"features.safetensors": b"features"}
    first, second = (replace(SAMPLES[n], key=f"{folders}{'水' if n else 'k'}{'k' * length}{n}") for n in range(2))
    written = [replace(first, extras=extras), replace(second, extras=extras)]
    reader = ShardReader(write(tmp_path / "shards", written))
    assert [reader.read(row) for row in range(2)] == written
    assert verify_shards(tmp_path / "shards").faults == []
    with tarfile.open(tmp_path / "shards" / "shard-000000.tar") as tar:
        assert tar.getnames() == [f"{s.key}.{ending}" for s in written for ending in to_members(s)]


def test_webdataset_reads_the_shards(folder):
    urls = sorted(str(path) for path in folder.glob("*.tar"))
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [item["__key__"] for item in read] == [sample.key for sample in SAMPLES]
    for item, sample in zip(read, SAMPLES):
        assert item[sample.extension[1:]] == sample.video
        assert item["txt"].decode() == sample.meta["caption"]
        assert json.loads(item["json"])["question"] == "Où ?"


def test_the_tar_is_plain(folder):
    with tarfile.open(folder / "shard-000000.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members][:3] == ["000000000.webm", "000000000.txt", "000000000.json"]
    assert {(member.mtime, member.uid, member.gid) for member in members} == {(0, 0, 0)}
    assert not any(member.pax_headers for member in members)


def test_the_sidecar_describes_the_shard(folder):
    tar = (folder / "shard-000001.tar").read_bytes()
    sidecar = json.loads((folder / "shard-000001.index.json").read_text())
    assert sidecar["bytes"] == len(tar) and sidecar["sha256"] == hashlib.sha256(tar).hexdigest()
    with tarfile.open(folder / "shard-000001.tar") as archive:
        offsets = {member.name: member.offset for member in archive}
    for entry, sample in zip(sidecar["samples"], SAMPLES[3:]):
        assert entry["offset"] == offsets[sample.key + sample.extension]
        assert entry["members"][sample.extension[1:]] == len(sample.video)


def test_equal_samples_give_equal_bytes(folder, tmp_path):
    again = write(tmp_path / "again")
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in again.iterdir())
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_the_hash_follows_the_content(folder, tmp_path):
    changed = write(tmp_path / "changed", [*SAMPLES[:-1], sample(6, caption="A bell.")])
    swapped = write(tmp_path / "swapped", [SAMPLES[1], SAMPLES[0], *SAMPLES[2:]])
    assert len({ShardReader(path).manifest_hash for path in (folder, changed, swapped)}) == 3


def test_damage_is_noticed_and_named(folder):
    damage(folder / "shard-000000.tar", 700)
    reader = ShardReader(folder)
    with pytest.raises(BadVideo, match="shard-000000.tar") as caught:
        reader.read(0)
    assert caught.value.reason == "corrupt_shard"
    assert reader.key(0) == "000000000"
    assert reader.read(1) == SAMPLES[1]


def test_a_truncated_or_missing_shard_is_noticed(folder):
    path = folder / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:4000])
    (folder / "shard-000002.tar").unlink()
    reader = ShardReader(folder)
    with pytest.raises(BadVideo, match="corrupt_shard"):
        reader.read(5)
    with pytest.raises(DataError, match="not on disk"):
        reader.read(6)


def test_a_folder_without_a_finished_dataset_says_what_to_do(folder, tmp_path):
    with pytest.raises(DataError, match="does not exist.*vtok-shards build"):
        ShardReader(tmp_path / "nowhere")
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="no finished dataset.*vtok-shards build"):
        ShardReader(folder)


def test_another_version_is_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 99}))
    with pytest.raises(DataError, match="version 99"):
        ShardReader(folder)


def test_an_interrupted_shard_leaves_nothing(tmp_path):
    def interrupted():
        yield SAMPLES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, 0, interrupted())
    assert list(tmp_path.iterdir()) == []


def test_a_file_keeps_its_old_content_until_the_new_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"ne")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_shard_without_samples_is_not_written(tmp_path):
    assert write_shard(tmp_path, 0, []) == 0
    assert list(tmp_path.iterdir()) == []


def test_readers_cross_process_borders(folder):
    reader = ShardReader(folder)
    reader.read(0)  # the child inherits an open shard
    assert len(pickle.dumps(reader)) < 1000
    assert pickle.loads(pickle.dumps(reader)).read(2) == SAMPLES[2]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(reader.read, range(7)) == SAMPLES


def test_few_shards_stay_open_however_many_datasets_are_read(tmp_path, monkeypatch):
    def count_open():
        links = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        return sum(link.startswith(str(tmp_path)) and link.endswith(".tar") for link in links)

    monkeypatch.setattr("data_tools.shards.reader.MAX_OPEN_SHARDS", 2)
    readers = [ShardReader(write(tmp_path / name, per_shard=1)) for name in ("a", "b", "c")]
    for row in (0, 1, 2, 6, 0, 5):
        assert [reader.read(row) for reader in readers] == [SAMPLES[row]] * 3
        assert count_open() == 2
    readers.clear()
    assert count_open() == 0


def test_the_short_way_to_a_plain_sample_gives_the_same(folder, monkeypatch):
    """`ShardReader.read` parses our own layout directly; the walk that reads any tar must agree."""
    reader = ShardReader(folder)
    short = [reader.read(row) for row in range(len(reader))]
    monkeypatch.setattr("data_tools.shards.reader._plain_sample", lambda *parts: None)
    assert [reader.read(row) for row in range(len(reader))] == short
    data = (folder / "shard-000000.tar").read_bytes()
    entry = json.loads((folder / "shard-000000.index.json").read_text())["samples"][0]
    size = next(iter(entry["members"].values()))
    head, body, tail = data[:512], data[512 : 512 + size], data[512 + size : entry["length"]]
    monkeypatch.undo()
    assert _plain_sample(head, body, tail) == short[0]
    assert _plain_sample(head, body, tail + bytes(512)) is None  # one more member
    assert _plain_sample(head.replace(b".mp4", b".txt").replace(b".webm", b".txt"), body, tail) is None
