"""Folders of shards that have lost or damaged a file: one line says what to do, and doing so repairs it."""

import shutil
from pathlib import Path

import pytest

from data_tools.cli import main
from data_tools.errors import DataError
from data_tools.inspect.verify import verify_shards
from data_tools.packing import build_shards, builder
from data_tools.packing.plan import Part
from data_tools.shards import ShardReader
from data_tools.shards.remote import Cache
from support.damaged_clips import with_damage

CLIPS, PER_SHARD = 7, 2
DAMAGED = (1, 4, 5)  # the last two are a whole shard


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return with_damage(tmp_path_factory.mktemp("clips"), CLIPS, frames=4, damaged=DAMAGED)


def pack(clips, output):
    return build_shards(clips, output, PER_SHARD, progress=False)


@pytest.fixture(scope="module")
def packed(clips, tmp_path_factory):
    output = tmp_path_factory.mktemp("packed") / "out"
    pack(clips, output)
    return output


NPY = "manifest.npy"
MANIFESTS = {
    "json empty": ("manifest.json", lambda data: b""),
    "json cut": ("manifest.json", lambda data: data[:40]),
    "json of another kind": ("manifest.json", lambda data: b"[]"),
    "json without fields": ("manifest.json", lambda data: b'{"version": 1}'),
    "json with odd fields": ("manifest.json", lambda data: b'{"version": 1, "hash": "", "samples": 1, "shards": [1]}'),
    "json of other numbers": ("manifest.json", lambda data: data.replace(b'"samples": ', b'"samples": 1')),
    "npy gone": (NPY, None),
    "npy empty": (NPY, lambda data: b""),
    "npy cut": (NPY, lambda data: data[:-30]),
    "npy cut in its header": (NPY, lambda data: data[:50]),
    "npy of other bytes": (NPY, lambda data: b"no numbers"),
    "npy that is a zip": (NPY, lambda data: b"PK\x03\x04" + data),
    "npy of other rows": (NPY, lambda data: data.replace(b"'shard'", b"'chard'")),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_damaged_manifest_is_named_and_the_index_repairs_it(case, packed, tmp_path, capsys):
    folder = shutil.copytree(packed, tmp_path / "out")
    name, damage = MANIFESTS[case]
    data = (folder / name).read_bytes()
    (folder / name).unlink() if damage is None else (folder / name).write_bytes(damage(data))
    commands = (["stats", str(folder)], ["show", str(folder), "--html", str(tmp_path / "page.html")])
    for command in commands:
        assert main(command) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
        assert name in line and line.endswith(f"run `vtok-shards index {folder}`")
    assert main(["index", str(folder)]) == 0
    assert (folder / name).read_bytes() == data and verify_shards(folder).faults == []


def test_a_sidecar_without_its_fields_is_named_and_the_index_repairs_it(packed, tmp_path, capsys):
    folder = shutil.copytree(packed, tmp_path / "out")
    (folder / "shard-000000.index.json").write_text('{"version": 1}')
    assert main(["stats", str(folder)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert "shard-000000.index.json cannot be read" in line and line.endswith(f"run `vtok-shards index {folder}`")
    assert main(["index", str(folder)]) == 0 and verify_shards(folder).faults == []


def test_training_says_what_repairs_a_manifest(packed, tmp_path):
    folder = shutil.copytree(packed, tmp_path / "out")
    (folder / NPY).write_bytes(b"")
    with pytest.raises(DataError, match="manifest.npy is damaged: run `vtok-shards index"):
        ShardReader(folder)
    with pytest.raises(DataError, match="manifest.npy is damaged: run `vtok-shards index DIR` where its shards lie"):
        ShardReader(f"file://{folder}", Cache(tmp_path / "cache"))
    shutil.copy(packed / NPY, folder)
    assert len(ShardReader(f"file://{folder}", Cache(tmp_path / "cache"))) == CLIPS - len(DAMAGED)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"samples_per_shard": 2', '{"samples_per_shard": 2, "datasets": 1}']
)
def test_a_damaged_plan_is_named(clips, packed, tmp_path, content, capsys):
    folder = shutil.copytree(packed, tmp_path / "out")
    (folder / "build.json").write_text(content)
    build = ["build", str(clips), "--output", str(folder), "--samples-per-shard", "2"]
    before = content_of(folder)
    for command in (build, [*build, "--overwrite"], ["merge", str(folder)]):
        assert main(command) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
        assert "build.json is damaged" in line and "delete this build" in line
    assert content_of(folder) == before  # whose files these are is not known


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- what a build makes again


def cut(path):
    path.write_bytes(path.read_bytes()[:5000])


def empty(path):
    path.write_bytes(b"")


LOST = {
    "tar gone": (("shard-000000.tar",), Path.unlink),
    "tar cut": (("shard-000001.tar",), cut),
    "all tars gone": ([f"shard-00000{number}.tar" for number in (0, 1, 3)], Path.unlink),
    "sidecar gone": (("shard-000001.index.json",), Path.unlink),
    "sidecar empty": (("shard-000003.index.json",), empty),
    "tar and manifest gone": (("shard-000000.tar", "manifest.json"), Path.unlink),
    "manifest gone": (("manifest.json",), Path.unlink),
    "manifest empty": (("manifest.json",), empty),
    "rows gone": (("manifest.npy",), Path.unlink),
    "rows empty": (("manifest.npy",), empty),
    "sidecars and manifest gone": (
        ("shard-000000.index.json", "shard-000001.index.json", "manifest.json"),
        Path.unlink,
    ),
}


@pytest.mark.parametrize("case", LOST)
def test_a_build_makes_again_what_was_lost_and_nothing_else(clips, packed, tmp_path, case):
    folder = shutil.copytree(packed, tmp_path / "out")
    names, damage = LOST[case]
    for name in names:
        damage(folder / name)
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    done = pack(clips, folder)
    assert (done.packed, done.rejected) == (CLIPS - len(DAMAGED), len(DAMAGED))
    assert content_of(folder) == content_of(packed)
    rewritten = {path.stem for path in times if path.stat().st_mtime_ns != times[path]}
    assert rewritten <= {name.partition(".")[0] for name in names}
    assert verify_shards(folder).faults == []


@pytest.mark.parametrize("part", [0, 1])
def test_parts_make_again_what_was_lost(clips, packed, tmp_path, part):
    folder = shutil.copytree(packed, tmp_path / "out")
    for name in ("shard-000000.tar", "shard-000003.tar"):
        (folder / name).unlink()
    for index in (part, 1 - part):
        build_shards(clips, folder, PER_SHARD, progress=False, part=Part(index, 2))
    assert content_of(folder) == content_of(packed)


def test_a_merge_keeps_the_rejected_clips_of_a_damaged_build(packed, tmp_path, capsys):
    folder = shutil.copytree(packed, tmp_path / "out")
    empty(folder / "manifest.npy")
    assert main(["merge", str(folder)]) == 0 and content_of(folder) == content_of(packed)
    (folder / "shard-000001.tar").unlink()
    assert main(["merge", str(folder)]) == 2
    assert "1 of 4 shards" in capsys.readouterr().err


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("ending", [Part(0, 2), Part(1, 2), Part()])
def test_an_index_of_some_parts_does_not_end_the_build(clips, packed, tmp_path, first, ending, capsys):
    folder = tmp_path / "out"
    build_shards(clips, folder, PER_SHARD, progress=False, part=Part(first, 2))
    assert main(["index", str(folder)]) == 0 and len(ShardReader(folder)) > 0  # to look at what is there
    done = build_shards(clips, folder, PER_SHARD, progress=False, part=ending)
    if ending == Part(first, 2):
        assert done.unfinished == 2
        done = build_shards(clips, folder, PER_SHARD, progress=False, part=Part(1 - first, 2))
    assert (done.packed, done.rejected, done.unfinished) == (CLIPS - len(DAMAGED), len(DAMAGED), 0)
    assert content_of(folder) == content_of(packed)


def test_a_merge_of_some_parts_that_were_indexed_says_what_is_missing(clips, tmp_path, capsys):
    build_shards(clips, tmp_path / "out", PER_SHARD, progress=False, part=Part(0, 2))
    assert main(["index", str(tmp_path / "out")]) == 0
    assert main(["merge", str(tmp_path / "out")]) == 2
    assert "2 of 4 shards" in capsys.readouterr().err


def test_an_index_before_the_merge_loses_no_rejected_clip(clips, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "merge", None)
    with pytest.raises(TypeError):
        pack(clips, tmp_path / "out")
    monkeypatch.undo()
    assert main(["index", str(tmp_path / "out")]) == 0
    assert pack(clips, tmp_path / "out").rejected == len(DAMAGED)
    assert content_of(tmp_path / "out") == content_of(packed)


@pytest.mark.parametrize("left", range(4))
def test_a_merge_that_was_killed_at_its_end_is_done_again(clips, packed, tmp_path, left, monkeypatch):
    monkeypatch.setattr(builder, "merge", None)
    with pytest.raises(TypeError):
        pack(clips, tmp_path / "killed")
    monkeypatch.undo()
    folder = shutil.copytree(packed, tmp_path / "out")
    shutil.copy(tmp_path / "killed" / f"shard-00000{left}.rejected.jsonl", folder)
    assert main(["merge", str(folder)]) == 0 and content_of(folder) == content_of(packed)


def test_shards_that_were_lost_before_an_index_are_made_again(clips, packed, tmp_path):
    folder = shutil.copytree(packed, tmp_path / "out")
    for path in folder.glob("shard-000000.*"):
        path.unlink()
    assert main(["index", str(folder)]) == 0
    assert pack(clips, folder).packed == CLIPS - len(DAMAGED) and content_of(folder) == content_of(packed)


@pytest.mark.parametrize("name", ["x.tar", "shard-{000000..000009}.tar", "shard-*.tar", "pipe:cat x.tar", "x.tar.gz"])
def test_tars_in_place_of_a_folder_are_named_as_such(tmp_path, name):
    (tmp_path / "x.tar").write_bytes(b"")
    with pytest.raises(DataError, match="names tars: name the folder that holds them"):
        ShardReader(name if name.startswith("pipe") else tmp_path / name)
