"""A build that is disturbed: by decoders that crash or hang, by kills, by others; and one that is divided."""

import io
import json
import os
import random
import signal
import subprocess
import tarfile
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image

from data_tools.cli import main
from data_tools.errors import DataError
from data_tools.packing import build_shards, builder, prepare
from data_tools.packing.merge import merge
from data_tools.packing.plan import Part, ShardTask, split
from data_tools.packing.sources import Columns, discover
from data_tools.packing.state import locked
from data_tools.shards import ShardReader
from data_tools.video.decode import validate
from support.damaged_clips import with_damage
from support.ends import abort, kill_myself, leave, sleep_for_ever, spin_for_ever, wait_for

ROOT = Path(__file__).resolve().parents[2]
CLIPS = 20
PER_SHARD = 3
DAMAGED = (4, 9, 10, 11)  # the last three are a whole shard


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return with_damage(tmp_path_factory.mktemp("clips"), CLIPS, frames=8, damaged=DAMAGED)


@pytest.fixture(scope="module")
def undisturbed(clips, tmp_path_factory):
    return pack(clips, tmp_path_factory.mktemp("undisturbed") / "out")


def pack(clips, output, **options):
    build_shards(clips, output, PER_SHARD, progress=False, **options)
    return output


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def reasons(output):
    lines = map(json.loads, (output / "rejected.jsonl").read_text().splitlines())
    return [(Path(line["path"]).stem, line["reason"]) for line in lines]


@pytest.mark.parametrize("workers", [2, 3, 16])
def test_the_bytes_do_not_depend_on_the_number_of_workers(clips, undisturbed, tmp_path, workers):
    assert content(pack(clips, tmp_path / "out", workers=workers)) == content(undisturbed)
    assert reasons(undisturbed) == [(f"{number:03d}", "not_a_video") for number in DAMAGED]


# ---- decoders that crash or hang


@pytest.mark.parametrize("workers", [1, 2])
def test_a_decoder_that_crashes_or_hangs_costs_its_clip(clips, undisturbed, tmp_path, monkeypatch, workers):
    videos = {(clips / f"{number:03d}.mp4").read_bytes(): number for number in range(CLIPS) if number not in DAMAGED}
    fates = {0: abort, 1: kill_myself, 2: sleep_for_ever, 7: spin_for_ever, 12: fail, 19: leave}

    def fragile(video):
        fates.get(videos.get(video), int)()
        return validate(video)

    monkeypatch.setattr(prepare, "validate", fragile)
    out = pack(clips, tmp_path / "out", workers=workers, clip_timeout=2.0)
    expected = {number: "not_a_video" for number in DAMAGED} | dict.fromkeys((0, 1, 12, 19), "decoder_crash")
    expected |= dict.fromkeys((2, 7), "timeout")
    assert reasons(out) == [(f"{number:03d}", expected[number]) for number in sorted(expected)]
    ours, whole = ShardReader(out), ShardReader(undisturbed)
    kept = {whole.key(row): whole.read(row) for row in range(len(whole))}
    assert len(ours) == CLIPS - len(expected)
    assert all(ours.read(row) == kept[ours.key(row)] for row in range(len(ours)))


def fail():
    raise RuntimeError("a bug in a decoder")


def test_the_reasons_tell_how_a_decoder_ended(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "validate", lambda video: abort())
    with pytest.raises(DataError, match="all 20 clips were rejected"):
        pack(clips, tmp_path / "out")
    details = {json.loads(line)["detail"] for line in (tmp_path / "out" / "rejected.jsonl").open()}
    assert details == {"the process ended with SIGABRT"}


def test_a_worker_that_dies_stops_the_build_with_one_line(clips, undisturbed, tmp_path, monkeypatch):
    write = builder.write_shard

    def dies_at_the_third(folder, number, samples):
        if number == 2:
            kill_myself()
        return write(folder, number, samples)

    monkeypatch.setattr(builder, "write_shard", dies_at_the_third)
    with pytest.raises(DataError, match="a worker died.*SIGKILL.*run the same command again"):
        pack(clips, tmp_path / "out", workers=2)
    monkeypatch.undo()
    assert content(pack(clips, tmp_path / "out")) == content(undisturbed)


# ---- builds that are killed


def start_build(clips, output, **options):
    """A build that is the leader of a process group of its own."""

    def run():
        os.setsid()
        pack(clips, output, **options)

    process = get_context("fork").Process(target=run)
    process.start()
    return process


@pytest.fixture
def looks(tmp_path, monkeypatch):
    """A file that grows by a byte with each clip that is looked at; no clip takes less than 10 ms."""
    log = tmp_path / "looks"
    log.touch()

    def logged(video):
        with log.open("ab") as file:
            file.write(b".")
        time.sleep(0.01)
        return validate(video)

    monkeypatch.setattr(prepare, "validate", logged)
    return log


def test_a_build_killed_ten_times_equals_an_undisturbed_one(clips, undisturbed, tmp_path, looks):
    draw, out, finished, stages = random.Random(0), tmp_path / "out", {}, []
    for _ in range(10):
        process, goal = start_build(clips, out, workers=2), looks.stat().st_size + draw.randrange(1, 10)
        wait_for(lambda: looks.stat().st_size >= goal or not process.is_alive())
        time.sleep(draw.uniform(0, 0.02))
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        now = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("*.index.json")}
        assert finished.items() <= now.items()
        finished = now
        stages.append(len(now))
    shards = len(list(undisturbed.glob("*.index.json")))
    assert any(0 < stage < shards for stage in stages), "no kill fell into the work"
    assert content(pack(clips, out, workers=2)) == content(undisturbed)


def test_a_kill_of_the_first_process_alone_ends_all(clips, undisturbed, tmp_path, looks):
    process = start_build(clips, tmp_path / "out", workers=2)
    wait_for(lambda: looks.stat().st_size >= 5)
    process.kill()
    process.join()
    assert content(pack(clips, tmp_path / "out")) == content(undisturbed)


def test_finished_shards_are_not_packed_again(clips, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "merge", None)
    with pytest.raises(TypeError):
        pack(clips, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(prepare, "validate", None)  # whatever is decoded now would be rejected
    assert content(pack(clips, tmp_path / "out")) == content(undisturbed)


def test_another_process_at_the_same_shards_is_refused(clips, tmp_path):
    pack(clips, tmp_path / "out", part=Part(0, 2))
    with locked(tmp_path / "out", 0, 3):
        with pytest.raises(DataError, match="is being written by another process"):
            with locked(tmp_path / "out", 2, 1, patience=0.1):
                pass
        with locked(tmp_path / "out", 3, 4, patience=0.1):
            pass


def test_a_change_between_two_attempts_is_an_error(clips, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rows = [f"{clips / '000.mp4'},One.", f"{clips / '001.mp4'},Two."]
    (folder / "captions.csv").write_text("\n".join(["path,caption", *rows]))
    pack(folder, tmp_path / "out")
    for options, told in (
        ({"columns": Columns(source="caption")}, "columns was"),
        ({"recipe": prepare.Recipe(min_side=8)}, "recipe was"),
    ):
        with pytest.raises(DataError, match=told):
            pack(folder, tmp_path / "out", **options)
    (folder / "captions.csv").write_text("\n".join(["path,caption", *reversed(rows)]))
    with pytest.raises(DataError, match="the clips of the input have changed"):
        pack(folder, tmp_path / "out")


def tar_of(path, bodies):
    with tarfile.open(path, "w") as tar:
        for name, body in bodies.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))


def inputs(clips, folder):
    """An input of each layout, as {name of the layout: (input, a file of it)}."""
    one, two = ((clips / name).read_bytes() for name in ("000.mp4", "001.mp4"))
    for name in ("beside", "table", "tars", "frames/a/frames"):
        (folder / name).mkdir(parents=True)
    for name, body in {"a.mp4": one, "a.txt": b"One.", "b.mp4": b"damaged", "b.json": b'{"caption": "Two."}'}.items():
        (folder / "beside" / name).write_bytes(body)
    (folder / "table" / "captions.csv").write_text("path,caption\na.mp4,One.\nb.mp4,Two.\ngone.mp4,Three.")
    (folder / "table" / "a.mp4").write_bytes(one)
    (folder / "table" / "b.mp4").write_bytes(two)
    tar_of(folder / "tars" / "a.tar", {"a.mp4": one, "a.txt": b"One."})
    (folder / "frames" / "a" / "caption.txt").write_text("One.")
    for number in range(2):
        Image.new("RGB", (32, 32)).save(folder / "frames" / "a" / "frames" / f"{number}.png")
    files = {"beside": "a.txt", "table": "b.mp4", "tars": "a.tar", "frames": "a/frames/1.png"}
    return {layout: (folder / layout, folder / layout / name) for layout, name in files.items()}


@pytest.mark.parametrize("layout", ["beside", "table", "tars", "frames"])
def test_a_file_that_was_replaced_after_a_build_is_an_error(clips, tmp_path, layout, capsys):
    folder, file = inputs(clips, tmp_path)[layout]
    command = ["build", str(folder), "--output", str(tmp_path / "out")]
    assert main(command) == 0 and main(command) == 0
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    capsys.readouterr()
    assert main(command) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    told = "files of the input have changed since they were packed: choose another folder, or --overwrite"
    assert line.endswith(f"already holds another build: {told}")
    assert main([*command, "--overwrite"]) == 0 and main(command) == 0


def test_a_damaged_video_that_was_mended_is_packed_anew(clips, tmp_path):
    folder, _ = inputs(clips, tmp_path)["beside"]
    assert build_shards(folder, tmp_path / "out", progress=False).reasons == {"not_a_video": 1}
    (folder / "b.mp4").write_bytes((clips / "001.mp4").read_bytes())
    with pytest.raises(DataError, match="--overwrite"):
        build_shards(folder, tmp_path / "out", progress=False)
    assert build_shards(folder, tmp_path / "out", progress=False, overwrite=True).packed == 2


def test_a_build_that_an_earlier_version_began_goes_on(clips, undisturbed, tmp_path):
    out = pack(clips, tmp_path / "out", part=Part(0, 2))
    plan = json.loads((out / "build.json").read_text())
    del plan["files"]
    (out / "build.json").write_text(json.dumps(plan))
    pack(clips, out)
    assert {name: body for name, body in content(out).items() if name.name != "build.json"}.items() <= content(
        undisturbed
    ).items()


# ---- parts, and the split


def test_parts_cover_every_shard_once():
    tasks = [ShardTask("", number, range(3)) for number in range(7)]
    for count in range(1, 10):
        assert sum((list(Part(index, count).of(tasks)) for index in range(count)), []) == tasks
    with pytest.raises(DataError, match="part 8/8"):
        Part(8, 8)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_parts_make_up_the_undivided_build(clips, undisturbed, tmp_path, order):
    out = tmp_path / "out"
    for index in order:
        summary = build_shards(clips, out, PER_SHARD, progress=False, part=Part(index, 3))
    assert summary.unfinished == 0 and summary.packed == CLIPS - len(DAMAGED)
    assert content(out) == content(undisturbed)
    merge(out)
    assert content(out) == content(undisturbed)


def test_parts_may_run_at_the_same_time(clips, undisturbed, tmp_path):
    parts = [start_build(clips, tmp_path / "out", part=Part(index, 4)) for index in range(4)]
    for process in parts:
        process.join()
    assert [process.exitcode for process in parts] == [0] * 4
    assert content(tmp_path / "out") == content(undisturbed)


def test_merging_too_early_says_what_is_missing(clips, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["merge", str(out)]) == 2 and "holds no build" in capsys.readouterr().err
    assert main(["build", str(clips), "--output", str(out), "--samples-per-shard", "3", "--part", "1/2"]) == 0
    assert "3 shards of other parts are missing" in capsys.readouterr().out
    assert not (out / "manifest.json").exists()
    assert main(["merge", str(out)]) == 2
    assert "3 of 7 shards" in (line := capsys.readouterr().err) and "the first is shard-000000" in line
    with pytest.raises(DataError, match="--overwrite would delete"):
        pack(clips, out, part=Part(0, 2), overwrite=True)


def test_the_split_keeps_sources_together_and_loses_nothing(clips, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rows = [f"{clips / f'00{n % 4}.mp4'},Clip {n}.,film {n % 8}" for n in range(32)]
    (folder / "captions.csv").write_text("\n".join(["path,caption,film", *rows]))
    source = discover(folder, Columns(source="film"))
    assert len(source) == 4  # rows of one video are one clip
    rows = [f"{clips / '000.mp4'},Clip {n}.,film {n % 8},{n / 100},0.9" for n in range(32)]
    (folder / "captions.csv").write_text("\n".join(["path,caption,film,start,end", *rows]))
    sides = split(discover(folder, Columns(source="film")), 0.4)
    films = {side: {number % 8 for number in numbers.tolist()} for side, numbers in sides.items()}
    assert films["train"] | films["val"] == set(range(8)) and not films["train"] & films["val"]
    with pytest.raises(DataError, match="leaves none for"):
        split(discover(folder), 0.5)  # all from one video

    out = pack(clips, tmp_path / "out", val_share=0.3, workers=2)
    readers = [ShardReader(out / side) for side in ("train", "val")]
    keys = [reader.key(row) for reader in readers for row in range(len(reader))]
    rejects = [line for side in ("train", "val") for line in (out / side / "rejected.jsonl").open()]
    assert sorted(keys) == [f"{n:09d}" for n in range(CLIPS) if n not in DAMAGED] and len(rejects) == len(DAMAGED)
    assert content(pack(clips, tmp_path / "again", val_share=0.3)) == content(out)


# ---- the Slurm script


def test_the_script_gives_each_task_of_an_array_its_part(tmp_path):
    (tmp_path / "vtok-shards").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "vtok-shards").chmod(0o755)

    def run(**slurm):
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | slurm
        command = ["bash", str(ROOT / "slurm" / "build_shards.sh"), "in", "--output", "out"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert run() == "build --workers 1 --part 0/1 in --output out"
    array = {f"SLURM_ARRAY_TASK_{name}": value for name, value in dict(ID="5", MIN="1", MAX="8", COUNT="8").items()}
    assert run(SLURM_CPUS_PER_TASK="4", **array) == "build --workers 4 --part 4/8 in --output out"
