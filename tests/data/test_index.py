"""The index of tars that others built: every clip readable by row, every other sample named with its reason."""

import hashlib
import io
import json
import os
import shutil
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

from data_tools.cli import main
from data_tools.dataset import ClipDataset
from data_tools.errors import DataError
from data_tools.inspect import index
from data_tools.inspect.index import index_shards
from data_tools.inspect.verify import verify_shards
from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from data_tools.shards import RawSample, ShardReader, samples, write_manifest, write_shard
from data_tools.video.decode import validate
from data_tools.video.views import View
from support.ends import abort, sleep_for_ever
from support.real_clips import BAD_CLIPS, CLIPS, DAMAGED, needs_shared

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = "ordner/" + "ä水" * 60 + "/" + "é" * 90


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    render_clips(folder, 4, seed=0)
    return [(folder / f"{number:03d}.mp4").read_bytes() for number in range(4)]


def pack(path, files, form=tarfile.PAX_FORMAT, mtime=1700000000.25):
    """A tar of (name, body) pairs."""
    path.parent.mkdir(exist_ok=True, parents=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, body in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(body), mtime
            archive.addfile(info, io.BytesIO(body))
    return path.parent


def rejected(folder):
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


def test_tars_of_webdataset_can_be_read_by_row(clips, tmp_path):
    folder = tmp_path / "wds"
    folder.mkdir()
    for shard in range(2):
        with webdataset.TarWriter(str(folder / f"train-{shard}.tar")) as writer:
            for number in (0, 1):
                clip = 2 * shard + number
                about = {"id": clip, "caption": "not this"}
                writer.write(
                    {"__key__": f"d/{number}", "json": about, "mp4": clips[clip], "txt": f"Clip {clip}.", "cls": 7}
                )
    tars = {path: path.read_bytes() for path in folder.glob("*.tar")}
    assert any(member.pax_headers for member in tarfile.open(next(iter(tars))))  # the float time is there
    summary = index_shards(folder)
    assert (summary.samples, summary.shards, summary.reasons, summary.merged) == (4, 2, {}, 0)
    assert summary.bytes == sum(map(len, tars.values()))

    reader = ShardReader(folder)
    assert reader.shard_names == ["train-0", "train-1"]
    for row in range(4):
        sample, facts = reader.read(row), validate(clips[row])
        assert (sample.key, sample.video, sample.extension) == (f"d/{row % 2}", clips[row], ".mp4")
        assert sample.meta == {
            "caption": f"Clip {row}.",
            "id": row,
            "path": f"d/{row % 2}.mp4",
            "facts": {"frames": facts.frames, "duration": pytest.approx(facts.duration), "entry": facts.entry},
        }
        assert sample.extras == {"cls": b"7"}
    assert all(path.read_bytes() == data for path, data in tars.items())
    assert verify_shards(folder, decode=True).faults == []

    sidecar = json.loads((folder / "train-1.index.json").read_text())
    assert sidecar["sha256"] == hashlib.sha256(tars[folder / "train-1.tar"]).hexdigest()
    assert sidecar["samples"][0]["facts"] == validate(clips[2]).to_dict()


def test_training_reads_them(clips, tmp_path):
    folder = pack(
        tmp_path / "in" / "00000.tar", [("1.mp4", clips[0]), ("1.txt", b"A.\n"), ("2.mp4", clips[1]), ("2.txt", b"B.")]
    )
    index_shards(folder)
    data = ClipDataset(ShardReader(folder), seed=0, seconds=1.0, tokeniser_view=View(4, 5, 28, 28), training=False)
    assert [(data[row].key, data[row].caption) for row in (0, 1)] == [("1", "A."), ("2", "B.")]
    assert data[0].frames.shape == (5, 3, 28, 28) and data[0].replaced == ()
    assert not torch.equal(data[0].frames, data[1].frames)
    # Their json says nothing of key frames, so the sidecar does.
    assert [ShardReader(folder).read(row).meta["facts"]["entry"] for row in (0, 1)] == ["key_frames"] * 2


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_headers_of_every_make_and_long_names(clips, tmp_path, form):
    keys = ["a/b/0", "p" * 90 + "/" + "q" * 90] + ([] if form == tarfile.USTAR_FORMAT else [LONG])
    orders = ([".mp4", ".txt"], [".txt", ".x", ".mp4"], [".caption", ".mp4"])
    bodies = {".txt": "Æ.".encode(), ".caption": "Æ.".encode(), ".x": b"1"}
    files = [
        (key + ending, bodies.get(ending, clips[number]))
        for number, key in enumerate(keys)
        for ending in orders[number]
    ]
    folder = pack(tmp_path / "in" / "0.tar", files, form)
    assert index_shards(folder).samples == len(keys)
    reader = ShardReader(folder)
    samples = [reader.read(row) for row in range(len(keys))]
    assert [sample.key for sample in samples] == keys == [reader.key(row) for row in range(len(keys))]
    assert [sample.video for sample in samples] == clips[: len(keys)]
    assert {sample.meta["caption"] for sample in samples} == {"Æ."}
    assert verify_shards(folder).faults == []


def test_what_is_no_sound_captioned_clip_is_left_out(clips, tmp_path, capsys):
    good = clips[0]
    files = [
        *[("ok.mp4", good), ("ok.txt", b"A.")],
        *[("cut.mp4", good[: len(good) // 2]), ("cut.txt", b"A.")],
        *[("mute.mp4", good)],
        *[("word.txt", b"A.")],
        *[("v.1.mp4", good), ("v.1.txt", b"A."), ("v.2.mp4", clips[1]), ("v.2.txt", b"B.")],
        *[("twice.mp4", good), ("twice.txt", b"A."), ("twice.MP4", good)],
        *[("told.mp4", good), ("told.json", b'{"caption": "A.", "facts": {"frames": 5, "duration": 3.0}}')],
        *[("one.dot.mp4", clips[2]), ("one.dot.txt", b"C.")],
    ]
    folder = pack(tmp_path / "in" / "0.tar", files)
    assert main(["index", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("indexed 2 clips in 1 tars (") and "left out 6 (duplicate_member 1, no_caption 1" in out
    (warning,) = [line for line in err.splitlines() if line]
    assert "warning: 1 samples hold several clips" in warning
    assert {line["path"]: line["reason"] for line in rejected(folder)} == {
        "0.tar/cut": "truncated",
        "0.tar/mute": "no_caption",
        "0.tar/word": "no_video",
        "0.tar/v": "several_videos",
        "0.tar/twice": "duplicate_member",
        "0.tar/told": "wrong_facts",
    }
    reader = ShardReader(folder)
    assert [(reader.read(row).key, reader.read(row).video) for row in range(2)] == [("ok", good), ("one", clips[2])]
    assert verify_shards(folder).faults == []


def test_of_samples_with_one_key_in_a_tar_the_first_sound_one_is_indexed(clips, tmp_path):
    files = [
        *[("a.mp4", b"no video"), ("a.txt", b"A.")],
        *[("b.mp4", clips[0]), ("b.txt", b"B.")],
        *[("a.mp4", clips[1]), ("a.txt", b"A.")],
        *[("b.mp4", clips[2]), ("b.txt", b"B again.")],
        *[("c/b.mp4", clips[3]), ("c/b.txt", b"Another key.")],
    ]
    folder = pack(tmp_path / "in" / "0.tar", files)
    assert index_shards(folder).reasons == {"not_a_video": 1, "duplicate_key": 1}
    reader = ShardReader(folder)
    assert [reader.read(row).meta["caption"] for row in range(len(reader))] == ["B.", "A.", "Another key."]
    assert verify_shards(folder, decode=True).faults == []


def test_an_index_goes_on_where_it_stopped(clips, tmp_path, monkeypatch):
    for name in ("0", "1", "2"):
        files = [(f"{name}.mp4", clips[int(name)]), (f"{name}.txt", b"A."), ("x.mp4", b"no"), ("x.txt", b"A.")]
        folder = pack(tmp_path / "in" / f"{name}.tar", files)
    shutil.copytree(folder, tmp_path / "killed")
    index_shards(folder)

    log = tmp_path / "log"
    log.touch()

    def logged(video):
        with log.open("a") as file:
            file.write(f"{clips.index(video) if video in clips else video}\n")
        return validate(video)

    def decoded():
        names = log.read_text().split()
        log.write_text("")
        return names

    def dies_at_the_second(video):
        if video == clips[1]:
            os.kill(os.getppid(), signal.SIGINT)
            sleep_for_ever()
        return logged(video)

    monkeypatch.setattr(index, "validate", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        index_shards(tmp_path / "killed")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir() if path.suffix != ".tar") == ["0.index.json"]
    assert decoded() == ["0", "b'no'"]
    monkeypatch.setattr(index, "validate", logged)
    index_shards(tmp_path / "killed")
    assert decoded() == ["1", "b'no'", "2", "b'no'"]
    for path in folder.iterdir():
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()

    assert index_shards(folder).reasons == {"not_a_video": 3} and decoded() == []
    pack(folder / "0.tar", [("0.mp4", clips[3]), ("0.txt", b"Anew.")])
    assert index_shards(folder).reasons == {"not_a_video": 2} and decoded() == ["3"]
    assert ShardReader(folder).read(0).meta["caption"] == "Anew."
    index_shards(folder, overwrite=True)
    assert len(decoded()) == 5


def test_an_index_keeps_how_stored_views_were_made(clips, tmp_path):
    folder = pack(tmp_path / "in" / "0.tar", [("0.mp4", clips[0]), ("0.txt", b"A."), ("0.features", b"x")])
    index_shards(folder)
    write_manifest(folder, {"features": {"data.fps": 6}})
    index_shards(folder)
    assert ShardReader(folder).precomputed == {"features": {"data.fps": 6}}
    (folder / "manifest.json").write_text("damaged")
    index_shards(folder)
    assert ShardReader(folder).precomputed is None


@pytest.mark.parametrize("workers", [1, 2])
def test_an_index_that_finds_nothing_sound_leaves_the_sidecars(clips, tmp_path, workers):
    """Else the good sidecars of a dataset whose clips the decoder does not take today would be lost."""
    for name in ("0", "1"):
        folder = pack(tmp_path / "in" / f"{name}.tar", [("a.mp4", clips[0]), ("a.txt", b"A.")])
    index_shards(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "rejected.jsonl"}
    with pytest.raises(DataError, match="none of the samples is a captioned clip"):
        index_shards(folder, workers, overwrite=True, clip_timeout=1e-6)
    assert [line["reason"] for line in rejected(folder)] == ["timeout"] * 2
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "rejected.jsonl"} == before
    pack(tmp_path / "in" / "2.tar", [("a.mp4", b"no"), ("a.txt", b"A.")])
    assert index_shards(folder, workers).samples == 2  # a tar without a sound sample is done too
    assert verify_shards(folder).faults == []


def test_a_precomputed_sample_may_have_no_video(clips, tmp_path):
    """As precompute.py --drop-video writes it. In any other dataset it is a fault."""
    facts = [validate(clip).to_dict() for clip in clips]
    write_shard(tmp_path, 0, [
        RawSample(str(number), b"", ".mp4", {"caption": "A.", "path": str(number), "facts": own}, {"latents": b"x"})
        for number, own in enumerate(facts)
    ])  # fmt: skip
    write_manifest(tmp_path, {"latents": {"decoder.fps": 6}})
    before = json.loads((tmp_path / "shard-000000.index.json").read_text())["samples"]
    rows = ShardReader(tmp_path).rows.tolist()
    for _ in range(2):
        assert verify_shards(tmp_path, decode=True).faults == []
        assert index_shards(tmp_path, overwrite=True).samples == len(clips)
        assert json.loads((tmp_path / "shard-000000.index.json").read_text())["samples"] == before
        assert ShardReader(tmp_path).rows.tolist() == rows
    write_manifest(tmp_path)
    assert all("empty_file" in fault for fault in verify_shards(tmp_path, decode=True).faults)

    del facts[0]["fps"]
    sample = RawSample("0", b"", ".mp4", {"caption": "A.", "path": "0", "facts": facts[0]}, {"latents": b"x"})
    write_shard(tmp_path, 0, [sample])
    write_manifest(tmp_path, {"latents": {"decoder.fps": 6}})
    (fault,) = verify_shards(tmp_path, decode=True).faults
    assert "its video was left out, and the json lacks fps: precompute it again" in fault


def test_a_changed_tar_of_the_same_size_is_indexed_again(clips, tmp_path):
    tar = tmp_path / "in" / "0.tar"
    folder = pack(tar, [("a.mp4", clips[0]), ("a.txt", b"A.")])
    index_shards(folder)
    before = tar.stat()
    pack(tar, [("a.mp4", clips[0]), ("a.txt", b"B.")])
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps the times
    assert tar.stat().st_size == before.st_size
    index_shards(folder)
    assert ShardReader(folder).read(0).meta["caption"] == "B." and verify_shards(folder).faults == []


def test_a_tar_that_was_copied_after_its_sidecar_is_not_decoded_again(clips, tmp_path, monkeypatch):
    tar = tmp_path / "in" / "0.tar"
    folder = pack(tar, [("a.mp4", clips[0]), ("a.txt", b"A.")])
    index_shards(folder)
    tar.write_bytes(tar.read_bytes())
    monkeypatch.setattr(index, "validate", abort)
    assert index_shards(folder).samples == 1


def test_what_lies_beside_the_tars_is_named(clips, tmp_path, capsys):
    files = [("a.mp4", clips[0]), ("a.txt", b"A.")]
    folder = pack(tmp_path / "in" / "0.tar", files)
    for name in ("b/1.tar", "b/2.tar", "c/3.tar", "c/4.tar", "5.TAR"):
        pack(folder / name, files)
    for name in ("6.tar.gz", "b/7.ZIP", "8.mp4", "captions.csv", "notes.md"):
        (folder / name).touch()
    for _ in range(2):  # what the first run writes is not named
        assert main(["index", str(folder)]) == 0
        lines = [line.removeprefix("vtok-shards: warning: ") for line in capsys.readouterr().err.splitlines() if line]
        assert [line.rpartition(":")[0] for line in lines if "not indexed" in line] == [
            "other tars are not indexed: 5.TAR, b/1.tar, b/2.tar and 2 more",
            "compressed archives are not indexed: 6.tar.gz, b/7.ZIP",
            "videos are not indexed: 8.mp4",
            "tables are not indexed: captions.csv",
        ]


def test_more_workers_give_the_same_files(clips, tmp_path):
    for name in "012":
        folder = pack(
            tmp_path / "one" / f"{name}.tar", [("a.mp4", clips[int(name)]), ("a.txt", b"A."), ("b.txt", b"B.")]
        )
    shutil.copytree(folder, tmp_path / "two")
    index_shards(folder, workers=1)
    index_shards(tmp_path / "two", workers=2)
    for path in folder.iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_a_lost_sidecar_of_ours_is_made_again(tmp_path):
    render_clips(tmp_path / "clips", 4, seed=0)
    (tmp_path / "clips" / "001.mp4").write_bytes(b"no")
    folder = tmp_path / "out"
    build_shards(tmp_path / "clips", folder, samples_per_shard=2, progress=False)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    lost = folder / "shard-000000.index.json"
    lost.unlink()
    index_shards(folder)
    made = json.loads(lost.read_text())
    assert (made.pop("rejected"), made.pop("merged")) == ([], 0)
    assert made == json.loads(before.pop(lost.name))
    assert rejected(folder) == [json.loads(line) for line in before.pop("rejected.jsonl").splitlines()]
    assert all((folder / name).read_bytes() == data for name, data in before.items())


def fails(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line]
    assert line.startswith("vtok-shards: error: ")
    return line


def test_folders_that_cannot_be_indexed_are_one_line(clips, tmp_path, capsys):
    assert "is not a folder" in fails(capsys, "index", tmp_path / "nowhere")
    (tmp_path / "packed").mkdir()
    assert "holds no .tar files: put them there" in fails(capsys, "index", tmp_path / "packed")
    (tmp_path / "packed" / "a.tar.gz").touch()
    assert "unpack them first" in fails(capsys, "index", tmp_path / "packed")
    pack(tmp_path / "above" / "below" / "0.tar", [("a.mp4", clips[0]), ("a.txt", b"A.")])
    assert f"{Path('below', '0.tar')}: give its folder" in fails(capsys, "index", tmp_path / "above")
    folder = pack(tmp_path / "in" / "0.tar", [("a.mp4", clips[0]), ("a.txt", b"A.")])
    assert "at least 1" in fails(capsys, "index", folder, "--workers", 0)
    (folder / "9.index.json").write_text("{}")
    assert "9.index.json belongs to a tar that is not there" in fails(capsys, "index", folder)
    assert not (folder / "manifest.json").exists()

    junk = pack(tmp_path / "junk" / "0.tar", [("a.mp4", b"no"), ("a.txt", b"A.")])
    assert "none of the samples is a captioned clip" in fails(capsys, "index", junk)
    assert rejected(junk)[0]["reason"] == "not_a_video" and not (junk / "manifest.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_tar_does_not_stop_the_others(clips, tmp_path, capsys, workers):
    for name in ("0", "1", "2"):
        folder = pack(tmp_path / "in" / f"{name}.tar", [("a.mp4", clips[0]), ("a.txt", b"A.")])
    whole = (folder / "1.tar").read_bytes()
    (folder / "1.tar").write_bytes(whole[:2000])
    line = fails(capsys, "index", folder, "--workers", workers)
    assert "1.tar: byte 2000: the tar ends inside a file that begins at byte 1024: repair or remove it" in line
    assert sorted(path.name for path in folder.glob("*.json*")) == ["0.index.json", "2.index.json"]
    (folder / "1.tar").write_bytes(whole)
    assert main(["index", str(folder)]) == 0
    assert [ShardReader(folder).read(row).video for row in range(3)] == [clips[0]] * 3


def test_a_damaged_sidecar_is_made_again(clips, tmp_path):
    folder = pack(tmp_path / "in" / "0.tar", [("a.mp4", clips[0]), ("a.txt", b"A.")])
    index_shards(folder)
    whole = (folder / "0.index.json").read_bytes()
    (folder / "0.index.json").write_bytes(whole[:-9])
    with pytest.raises(DataError, match="run `vtok-shards index"):
        ShardReader(folder).key(0)
    index_shards(folder)
    assert (folder / "0.index.json").read_bytes() == whole


def test_rows_are_as_ours(clips, tmp_path):
    files = [("a.mp4", clips[0]), ("a.txt", b"A."), ("b.txt", b"B."), ("c.mp4", clips[1]), ("c.txt", b"C.")]
    folder = pack(tmp_path / "in" / "0.tar", files)
    index_shards(folder)
    rows = ShardReader(folder).rows
    assert rows["shard"].tolist() == [0, 0] and np.all(np.diff(rows["offset"].astype(int)) > rows["length"][0])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_decoder_that_crashes_or_hangs_costs_its_clip(clips, tmp_path, monkeypatch, workers):
    for name in ("0", "1"):
        files = [
            (f"{number}.{ending}", body)
            for number, clip in enumerate(clips)
            for ending, body in (("mp4", clip), ("txt", b"A."))
        ]
        folder = pack(tmp_path / "in" / f"{name}.tar", files)
    fates = {clips[0]: abort, clips[2]: sleep_for_ever}

    def fragile(video):
        fates.get(video, int)()
        return validate(video)

    monkeypatch.setattr(index, "validate", fragile)
    summary = index_shards(folder, workers, clip_timeout=2.0)
    assert (summary.samples, summary.reasons) == (4, {"decoder_crash": 2, "timeout": 2})
    expected = [(f"{name}.tar/{key}", why) for name in "01" for key, why in ((0, "decoder_crash"), (2, "timeout"))]
    assert [(line["path"], line["reason"]) for line in rejected(folder)] == expected
    assert verify_shards(folder, decode=True).faults == []


def test_a_sample_too_large_to_hold_is_left_out(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "MAX_SAMPLE_BYTES", len(clips[0]) + 2000)
    files = [("a.mp4", clips[0]), ("a.txt", b"A."), ("b.bin", bytes(3000)), ("b.mp4", clips[0]), ("b.txt", b"B.")]
    folder = pack(tmp_path / "in" / "0.tar", files, tarfile.USTAR_FORMAT, 0)
    summary = index_shards(folder)
    assert (summary.samples, summary.reasons) == (1, {"too_large": 1})


@pytest.mark.slow
@needs_shared
def test_real_and_damaged_clips_fare_as_in_a_build(tmp_path):
    videos = [path for path in sorted(BAD_CLIPS.iterdir()) if path.suffix != ".md"]
    videos += sorted(CLIPS.glob("*.m*"))
    with webdataset.TarWriter(str(tmp_path / "all.tar")) as writer:
        for path in videos:
            text = {"text": path.stem}
            writer.write(
                {"__key__": f"{path.parent.name}/{path.stem}", path.suffix[1:]: path.read_bytes(), "json": text}
            )
    summary = index_shards(tmp_path)
    assert {line["path"].rpartition("/")[2]: line["reason"] for line in rejected(tmp_path)} == {
        Path(name).stem: reason for name, reason in DAMAGED.items()
    }
    assert summary.samples == len(videos) - len(DAMAGED)
    assert verify_shards(tmp_path, decode=True, workers=2).faults == []
