"""Datasets at an address: any protocol, one download a node, a bounded cache, patience, and a clear end to it."""

import multiprocessing
import pickle
import pwd
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from torch.utils.data import DataLoader, Dataset

from data_tools.errors import BadVideo, DataError
from data_tools.shards import RawSample, ShardReader, remote, write_manifest, write_shard
from data_tools.shards.remote import Cache, RemoteFolder, is_remote


def sample(number):
    meta = {"caption": "A ball.", "path": f"{number}.mp4", "facts": {"frames": 10, "duration": 1.0}}
    return RawSample(f"{number:09d}", bytes([number]) * 20_000, ".mp4", meta)


SAMPLES = [sample(number) for number in range(12)]
SHARD = 2 * (20_480 + 3 * 512 + 2 * 512) + 1024  # bytes of a shard: two samples and the end of the tar


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote") / "shards"
    folder.mkdir()
    for number in range(6):
        write_shard(folder, number, SAMPLES[2 * number : 2 * number + 2])
    write_manifest(folder)
    assert (folder / "shard-000000.tar").stat().st_size == SHARD
    return folder


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; `server.failures` requests for shards fail first, and those that succeed are listed."""

    def do_GET(self):
        if self.path.endswith(".tar"):
            with self.server.lock:
                self.server.failures -= 1
                fails = self.server.failures >= 0
            if fails:
                return self.send_error(503)
            self.server.served.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(folder):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        server.failures, server.served, server.lock = 0, [], threading.Lock()
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def cached(cache):
    return {path.name for path in cache.folder.glob("*/*.tar")}


def used(cache):
    return sum(path.stat().st_size for path in cache.folder.glob("*/*.tar"))


def test_addresses_are_told_from_paths():
    assert all(map(is_remote, ["s3://a/b", "hf://datasets/a/b", "https://a/b", "memory://x", "file:///a"]))
    assert not any(map(is_remote, ["/a/b", "a", "C:/a", "a://"[:2]]))


def test_a_file_address_reads_as_the_folder(folder, tmp_path):
    reader = ShardReader(f"file://{folder}", Cache(tmp_path))
    assert reader.manifest_hash == ShardReader(folder).manifest_hash
    assert [reader.read(row) for row in range(12)] == SAMPLES
    assert reader.key(5) == "000000005"
    assert pickle.loads(pickle.dumps(reader)).read(3) == SAMPLES[3]


def test_a_cache_in_a_home_that_nobody_knows_is_one_line_and_only_for_addresses(folder, monkeypatch):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert ShardReader(folder).key(5) == "000000005"
    assert "set HOME, or data.cache_dir to a folder without ~" in refused(f"file://{folder}", Cache())


def test_an_address_in_memory(folder, tmp_path):
    fsspec.filesystem("memory").put(str(folder), "/dataset", recursive=True)
    reader = ShardReader("memory://dataset/", Cache(tmp_path))
    assert [reader.read(row) for row in (11, 0)] == [SAMPLES[11], SAMPLES[0]]


def test_the_cache_stays_within_its_bounds_and_drops_what_was_unused_longest(folder, tmp_path):
    cache = Cache(tmp_path, max_bytes=3 * SHARD)
    reader = ShardReader(f"file://{folder}", cache)
    for row in (0, 2, 4, 0, 6):  # shards 0, 1, 2, 0 again, 3
        assert reader.read(row) == SAMPLES[row]
        assert used(cache) <= cache.max_bytes
    assert cached(cache) == {"shard-000000.tar", "shard-000002.tar", "shard-000003.tar"}


def test_a_cache_in_a_folder_with_other_data_leaves_it_alone(folder, tmp_path):
    """It neither counts nor is evicted, as in a scratch folder beside the user's own shards."""
    cache = Cache(tmp_path, max_bytes=SHARD)
    names = ("lock", "mine/0.tar", f"mine/1.tar.{SHARD}.part", f"{'0' * 24}/2.tar")
    for path in map(tmp_path.joinpath, names):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(SHARD))
    reader = ShardReader(f"file://{folder}", cache)
    assert [reader.read(row) for row in (0, 2)] == [SAMPLES[0], SAMPLES[2]]
    assert all((tmp_path / name).stat().st_size == SHARD for name in names)
    assert cached(cache) == {"0.tar", "2.tar", "shard-000001.tar"}


def test_a_folder_of_an_earlier_version_is_used_and_evicted_from(folder, tmp_path):
    cache = Cache(tmp_path, max_bytes=SHARD)
    earlier = ShardReader(f"file://{folder}", cache)
    earlier.read(0)
    next(tmp_path.glob(f"*/{remote.MARKER}")).unlink()
    reader = ShardReader(f"file://{folder}", cache)
    assert reader.read(2) == SAMPLES[2] and cached(cache) == {"shard-000001.tar"}


def test_two_datasets_share_one_cache(folder, tmp_path):
    cache = Cache(tmp_path / "cache", max_bytes=2 * SHARD)
    (tmp_path / "link").symlink_to(folder)
    first, second = ShardReader(f"file://{folder}", cache), ShardReader(f"file://{tmp_path}/link", cache)
    for row in (0, 2, 4):
        assert first.read(row) == second.read(row) == SAMPLES[row]
        assert used(cache) <= cache.max_bytes


def test_an_open_shard_outlives_its_eviction(folder, tmp_path):
    reader = RemoteFolder(f"file://{folder}", Cache(tmp_path, max_bytes=SHARD))
    with reader.opened("shard-000000.tar") as first, reader.opened("shard-000001.tar"):
        assert cached(reader.cache) == {"shard-000001.tar"}
        assert len(remote.os.pread(first, SHARD, 0)) == SHARD


def test_what_a_killed_process_left_makes_way(folder, tmp_path):
    reader = RemoteFolder(f"file://{folder}", Cache(tmp_path, max_bytes=SHARD))
    left = reader.local / f"shard-000004.tar.{SHARD}.part"
    left.write_bytes(b"half")
    with reader.opened("shard-000000.tar"):
        assert not left.exists()


def test_a_dataset_built_anew_at_its_address_is_not_mixed_with_the_old(folder, tmp_path):
    moving = tmp_path / "shards"
    moving.mkdir()
    cache = Cache(tmp_path / "cache")
    for part in (SAMPLES[:2], SAMPLES[2:4]):
        write_shard(moving, 0, part)
        write_manifest(moving)
        assert ShardReader(f"file://{moving}", cache).read(0) == part[0]


def test_a_server_that_fails_a_few_times(server, tmp_path):
    reader = ShardReader(server.url, Cache(tmp_path))
    server.failures = 3
    assert [reader.read(row) for row in range(12)] == SAMPLES
    assert len(server.served) == 6


def test_a_server_that_goes_on_failing(server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "ATTEMPTS", 3)
    reader = ShardReader(server.url, Cache(tmp_path))
    server.failures = 1000
    with pytest.raises(DataError, match=r"shard-000000.tar cannot be fetched, after 3 attempts: .*503") as caught:
        reader.read(0)
    assert not isinstance(caught.value, BadVideo) and "\n" not in str(caught.value)
    assert server.failures == 997 and not list(tmp_path.glob("*/*.part"))


def test_a_shard_cut_short_on_its_way_is_fetched_again(folder, tmp_path, monkeypatch):
    copies = []

    def cut_short(self, remote_path, local_path):
        data = fsspec.filesystem("file").cat_file(remote_path)
        copies.append(remote_path)
        with open(local_path, "wb") as file:
            file.write(data[: len(data) // 2] if len(copies) == 1 else data)

    reader = ShardReader(f"file://{folder}", Cache(tmp_path))
    monkeypatch.setattr(type(fsspec.filesystem("file")), "get_file", cut_short)
    assert reader.read(0) == SAMPLES[0] and sum(path.endswith(".tar") for path in copies) == 2


class Raw(Dataset):
    def __init__(self, reader):
        self.reader = reader

    def __getitem__(self, row):
        return self.reader.read(row)


def test_a_node_s_workers_fetch_each_shard_once(server, tmp_path):
    """Eight DataLoader workers of two "ranks", all of which want every shard."""
    readers = [ShardReader(server.url, Cache(tmp_path)) for _ in range(2)]
    loaders = [iter(DataLoader(Raw(r), batch_size=1, sampler=[*range(12)] * 2, num_workers=4, collate_fn=list))
               for r in readers]  # fmt: skip
    for _ in range(2):
        for row in range(12):
            assert [next(loader) for loader in loaders] == [[SAMPLES[row]]] * 2
    assert sorted(server.served) == [f"/shard-{number:06d}.tar" for number in range(6)]


def read_all(reader):
    return [reader.read(row) for row in (*range(0, 12, 2), *range(1, 12, 2))] == SAMPLES[::2] + SAMPLES[1::2]


def test_processes_that_evict_each_other_s_shards(folder, tmp_path):
    reader = ShardReader(f"file://{folder}", Cache(tmp_path, max_bytes=2 * SHARD))
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert all(pool.map(read_all, [reader] * 12, chunksize=1))
    assert used(reader.cache) <= 2 * SHARD


def refused(url, cache):
    with pytest.raises(DataError) as caught:
        ShardReader(url, cache).read(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_mended_is_said_at_once(folder, server, tmp_path):
    cache = Cache(tmp_path / "cache")
    assert "none/manifest.json cannot be fetched: FileNotFoundError" in refused(f"file://{tmp_path}/none", cache)
    assert "FileNotFoundError" in refused(f"{server.url}/none", cache)
    assert "Protocol not known" in refused("nonesuch://a/b", cache)
    assert "raise data.cache_gb" in refused(f"file://{folder}", Cache(tmp_path / "small", max_bytes=SHARD - 1))
    (tmp_path / "manifest.json").write_text("{}")
    assert "is not a dataset's manifest" in refused(f"file://{tmp_path}", cache)
    name = '{"hash": "", "version": 1, "samples": 0, "shards": [{"name": "../../x", "bytes": 1}]}'
    (tmp_path / "manifest.json").write_text(name)
    assert "cannot be the name of a shard" in refused(f"file://{tmp_path}", cache)
