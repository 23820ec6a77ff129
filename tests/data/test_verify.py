"""Verifying: a sound dataset is sound, and each way in which one breaks is found and named."""

import hashlib
import json
import shutil
import zlib

import numpy as np
import pytest

from data_tools.cli import main
from data_tools.inspect import verify
from data_tools.inspect.verify import verify_shards
from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from data_tools.shards import ShardReader, write_manifest, write_shard
from data_tools.video.decode import validate
from support.ends import abort, sleep_for_ever


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    render_clips(folder / "clips", 5, seed=0)
    build_shards(folder / "clips", folder / "shards", samples_per_shard=2, progress=False)
    return folder / "shards"


@pytest.fixture
def folder(built, tmp_path):
    return shutil.copytree(built, tmp_path / "shards")


def faults(folder, **options):
    return verify_shards(folder, **options).faults


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def edit(path, change):
    """Apply `change` to a JSON file's content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def reseal(folder, name):
    """Write the size and sha256 of a changed tar to its sidecar, and the manifest from the sidecars."""
    data = (folder / f"{name}.tar").read_bytes()
    sealed = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(folder / f"{name}.index.json", lambda sidecar: sidecar.update(sealed))
    write_manifest(folder)


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_sound_dataset_has_no_faults(built, decode, workers):
    verdict = verify_shards(built, decode, workers)
    size = sum(path.stat().st_size for path in built.glob("*.tar"))
    assert (verdict.samples, verdict.shards, verdict.bytes, verdict.faults) == (5, 3, size, [])


def test_every_flipped_byte_is_found(folder):
    path = folder / "shard-000001.tar"
    whole = path.read_bytes()
    first, second = json.loads((folder / "shard-000001.index.json").read_text())["samples"]
    for offset, key in ((first["offset"] + 700, first["key"]), (second["offset"] + 600, second["key"])):
        flip(path, offset)
        assert faults(folder) == [
            "shard-000001.tar: its sha256 differs from its sidecar's",
            f"shard-000001.tar: sample {key}: its bytes have changed since they were indexed (crc32)",
        ]
        path.write_bytes(whole)
    flip(path, len(whole) - 1)  # behind the samples
    found = faults(folder)
    assert found[0] == "shard-000001.tar: its sha256 differs from its sidecar's"
    assert "no tar header" in found[1]  # what lies behind an end may be a second tar
    path.write_bytes(whole)
    flip(path, second["offset"] + 3)  # in a name
    assert "no tar header" in faults(folder)[1] and second["key"] in faults(folder)[2]


@pytest.mark.parametrize("more", [b"x", b"junk" * 300, bytes(1024) + b"junk" * 300, bytes(10240), "the tar again"])
def test_what_lies_behind_a_tar_is_one_line(folder, more):
    path = folder / "shard-000001.tar"
    whole = path.read_bytes()
    more = whole if isinstance(more, str) else more
    path.write_bytes(whole + more)
    assert faults(folder) == [
        f"shard-000001.tar: {len(more)} bytes lie behind the end that its sidecar gives: "
        f"cut the file to {len(whole)} bytes"
    ]
    path.write_bytes(whole)
    assert faults(folder) == []


def test_a_truncated_shard_is_found(folder):
    path = folder / "shard-000001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:600])  # in the first clip's video, behind its header
    found = faults(folder)
    assert found[0] == f"shard-000001.tar: 600 bytes, its sidecar says {len(whole)}"
    assert any("the tar ends inside a file" in fault for fault in found)
    assert any("do not start at their offsets in the tar" in fault and "000000003" in fault for fault in found)
    path.write_bytes(b"")
    assert len(faults(folder)) == 2


def test_missing_and_extra_files_are_found(folder):
    (folder / "shard-000000.index.json").unlink()
    assert faults(folder) == ["shard-000000.tar: has no sidecar: the shard is unfinished"]
    (folder / "shard-000000.tar").unlink()
    assert faults(folder) == ["shard-000000.tar: is in the manifest but not in the folder"]
    (folder / "shard-000001.tar").unlink()
    assert faults(folder) == [
        "shard-000001.index.json: its tar is missing",
        "shard-000000.tar: is in the manifest but not in the folder",
        "shard-000001.tar: is in the manifest but not in the folder",
    ]


def test_a_shard_beside_the_manifest_is_found(folder):
    write_shard(folder, 7, [ShardReader(folder).read(0)])
    assert faults(folder) == [
        "shard-000000.tar: its key 000000000 is also in shard-000007.tar",
        "shard-000007.tar: is in the folder but not in the manifest",
    ]


def test_what_a_killed_writer_left_is_found(folder):
    (folder / "shard-000003.tar.part").write_bytes(b"half")
    assert faults(folder) == ["shard-000003.tar.part: left by a writer that was killed: delete it"]


@pytest.mark.parametrize("name", ["manifest.json", "manifest.npy"])
def test_a_missing_or_broken_manifest_is_found(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    assert len(faults(folder)) == 1 and faults(folder)[0].startswith(f"{name}: cannot be read")
    (folder / name).unlink()
    assert faults(folder) == [f"{name}: missing: the dataset is unfinished"]


@pytest.mark.parametrize("field", ["samples", "bytes", "hash"])
def test_a_wrong_number_in_the_manifest_is_found(folder, field):
    edit(folder / "manifest.json", lambda manifest: manifest.update({field: 4}))
    assert faults(folder) == [f"manifest.json: its field {field} does not match the sidecars"]


def test_a_shard_that_the_manifest_miscounts_is_found(folder):
    edit(folder / "manifest.json", lambda manifest: manifest["shards"][1].update(samples=1))
    assert faults(folder) == ["manifest.json: its field shards does not match the sidecars"]


def test_another_version_is_found(folder):
    edit(folder / "manifest.json", lambda manifest: manifest.update(version=99))
    assert "version 99" in faults(folder)[0]
    edit(folder / "shard-000001.index.json", lambda sidecar: sidecar.update(version=98))
    assert "version 98" in faults(folder)[0]


@pytest.mark.parametrize("field", ["offset", "length", "crc32", "frames", "duration", "shard"])
def test_a_wrong_row_is_found(folder, field):
    rows = np.load(folder / "manifest.npy")
    rows[field][3] += 1
    np.save(folder / "manifest.npy", rows)
    assert faults(folder) == ["manifest.npy: differs from the sidecars in row 3"]
    np.save(folder / "manifest.npy", rows[:-1])
    assert "4 rows" in faults(folder)[0] and "5 of" in faults(folder)[0]


def test_a_sidecar_that_cannot_be_read_is_found(folder):
    path = folder / "shard-000001.index.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    (fault,) = faults(folder)
    assert fault.startswith("shard-000001.tar: ") and "shard-000001.index.json cannot be read" in fault
    path.write_bytes(whole)
    edit(path, lambda sidecar: sidecar["samples"][0].pop("offset"))
    (fault,) = faults(folder)
    assert "lacks a field" in fault and "offset" in fault


def test_a_sidecar_that_does_not_fit_its_tar_is_found(folder):
    path = folder / "shard-000001.index.json"
    whole = path.read_bytes()

    def after(change):
        path.write_bytes(whole)
        edit(path, change)
        write_manifest(folder)
        return faults(folder)

    first = "shard-000001.tar: sample 000000002: "
    assert after(lambda s: s["samples"].pop(0)) == [first + "is in the tar but not in its sidecar"]
    assert after(lambda s: s["samples"].append(s["samples"][0])) == [
        "shard-000001.tar: its sidecar lists a sample twice"
    ]
    assert after(lambda s: s["samples"][0].update(key="x")) == [first + "tar and sidecar differ in key"]
    assert after(lambda s: s["samples"][0]["members"].update(mp4=1)) == [first + "tar and sidecar differ in members"]
    assert after(lambda s: s["samples"][0].update(length=1)) == [first + "tar and sidecar differ in length"]
    assert after(lambda s: s["samples"][0].update(crc32=1)) == [
        first + "its bytes have changed since they were indexed (crc32)"
    ]
    assert after(lambda s: s["samples"][0].update(offset=512)) == [
        first + "is in the tar but not in its sidecar",
        "shard-000001.tar: its sidecar lists samples that do not start at their offsets in the tar: 000000002",
    ]


def test_a_key_twice_is_found(folder, tmp_path):
    first, second, third = (ShardReader(folder).read(row) for row in range(3))
    again = tmp_path / "again"
    again.mkdir()
    write_shard(again, 0, [first, second, first])
    write_shard(again, 1, [third, second])
    write_manifest(again)
    assert faults(again) == [
        "shard-000000.tar: more than one sample has the key 000000000",
        "shard-000000.tar: its key 000000001 is also in shard-000001.tar",
    ]


def test_only_decoding_finds_a_clip_that_was_broken_when_it_was_packed(folder):
    path, name = folder / "shard-000001.tar", "shard-000001"
    sample = json.loads((folder / f"{name}.index.json").read_text())["samples"][0]
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat", sample["offset"]) + 900
    data[at : at + 200] = bytes(200)
    path.write_bytes(data)
    (broken,) = [fault for fault in faults(folder) if "crc32" in fault]
    assert "000000002" in broken
    crc32 = zlib.crc32(data[sample["offset"] : sample["offset"] + sample["length"]])
    edit(folder / f"{name}.index.json", lambda sidecar: sidecar["samples"][0].update(crc32=crc32))
    reseal(folder, name)
    assert faults(folder) == []
    (fault,) = faults(folder, decode=True)
    assert fault.startswith("shard-000001.tar: sample 000000002: corrupt: ")


def test_only_decoding_finds_facts_that_are_wrong(folder):
    edit(folder / "shard-000001.index.json", lambda sidecar: sidecar["samples"][1]["facts"].update(fps=65, codec="av1"))
    assert faults(folder) == []
    assert faults(folder, decode=True) == [
        "shard-000001.tar: sample 000000003: its sidecar says fps 65, the clip has 8.0",
        "shard-000001.tar: sample 000000003: its sidecar says codec 'av1', the clip has 'h264'",
    ]


def test_the_command_tells_by_line_and_exit_code(folder, tmp_path, capsys):
    assert main(["verify", str(folder), "--decode", "--workers", "2"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("5 clips in 3 shards (") and line.endswith("are sound, every clip decodes")
    (folder / "shard-000001.tar").unlink()
    (folder / "x.part").touch()
    assert main(["verify", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4 and out.splitlines()[-1] == f"3 faults in {folder}" and err == ""
    (tmp_path / "empty").mkdir()
    for target, says in ((tmp_path / "none", "is not a folder"), (tmp_path / "empty", "holds no dataset")):
        assert main(["verify", str(target)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("vtok-shards: error: ") and says in line
    assert main(["verify", str(folder), "--workers", "0"]) == 2


def test_verifying_changes_nothing(folder):
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    verify_shards(folder, decode=True)
    assert before == {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_decoder_that_crashes_or_hangs_is_a_fault_of_its_clip(built, monkeypatch, workers):
    reader = ShardReader(built)
    fates = {reader.read(0).video: abort, reader.read(3).video: sleep_for_ever}

    def fragile(video):
        fates.get(video, int)()
        return validate(video)

    monkeypatch.setattr(verify, "validate", fragile)
    assert faults(built, decode=True, workers=workers, clip_timeout=2.0) == [
        f"shard-000000.tar: sample {reader.key(0)}: decoder_crash: the process ended with SIGABRT",
        f"shard-000001.tar: sample {reader.key(3)}: timeout: no end after 2 s",
    ]
    assert faults(built, workers=workers) == []


def test_a_fresh_build_has_no_faults_whatever_its_texts_and_names(tmp_path):
    """A byte-order mark in a caption, a line break at its end, a name whose ending is that of a text, or none."""
    source = tmp_path / "in"
    render_clips(tmp_path / "clips", 4, seed=0)
    source.mkdir()
    texts = {
        "a.mp4": "\ufeffA bar moves.",
        "b.txt": "It falls.\r\n",
        "c": "  Two  spaces.  ",
        "d.MP4": "A\u2028B \ud83d\ude00",
    }
    for (name, _), clip in zip(texts.items(), sorted((tmp_path / "clips").glob("*.mp4"))):
        shutil.copy(clip, source / name)
    rows = [json.dumps({"path": name, "caption": text}) for name, text in texts.items()]
    (source / "captions.jsonl").write_text("\n".join(rows))
    done = build_shards(source, tmp_path / "shards", progress=False)
    assert done.packed == 4
    assert faults(tmp_path / "shards", decode=True) == []
    assert [ShardReader(tmp_path / "shards").read(row).extension for row in range(4)] == [
        ".mp4",
        ".video",
        ".video",
        ".mp4",
    ]
