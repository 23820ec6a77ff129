"""What a build costs, measured: ratios of its two sides, which take turns in going first."""

import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from data_tools.build import build_shards
from data_tools.video import opened, validate


def building(folder: Path, clip: bytes, clips: int = 32, repeats: int = 5) -> float:
    """Clips per second of one build with two workers over those of two builds with one worker each, run together."""
    for name, count in (("whole", clips), ("left", clips // 2), ("right", clips // 2)):
        write_clips(folder / name, clip, count)

    def two_workers(turn: int) -> None:
        run_together((folder / "whole", folder / f"whole-{turn}", 2))

    def two_builds(turn: int) -> None:
        run_together(*((folder / name, folder / f"{name}-{turn}", 1) for name in ("left", "right")))

    return median(in_turn(two_builds, two_workers, time.perf_counter, repeats))


def validating(clip: bytes, clips: int = 4, repeats: int = 7) -> float:
    """CPU time of validating a clip over that of one full decode of it."""

    def decode(_: int) -> None:
        for _ in range(clips):
            with opened(clip) as stream:
                for packet in stream.container.demux(stream):
                    for _ in packet.decode():
                        pass

    def check(_: int) -> None:
        for _ in range(clips):
            validate(clip)

    return median(in_turn(check, decode, time.process_time, repeats))


def write_clips(folder: Path, clip: bytes, clips: int) -> None:
    """A folder of equal clips, an input for a build."""
    folder.mkdir()
    for number in range(clips):
        (folder / f"{number:03d}.mp4").write_bytes(clip)
    rows = [f"{number:03d}.mp4,It drifts." for number in range(clips)]
    (folder / "captions.csv").write_text("\n".join(["path,caption", *rows]))


def run_together(*builds: tuple[Path, Path, int]) -> None:
    """Builds (input, output, workers), each in a process of its own, to their ends."""
    processes = [
        get_context("fork").Process(target=build_shards, args=(source, output, 4, False), kwargs={"workers": workers})
        for source, output, workers in builds
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a build ended with exit code {process.exitcode}")


def in_turn(
    one: Callable[[int], None], other: Callable[[int], None], clock: Callable[[], float], repeats: int
) -> list[float]:
    """Ratios of `one` to `other` by `clock`, a turn each; the two take turns in going first."""
    ratios = []
    for turn in range(repeats):
        took = {}
        for work in (one, other) if turn % 2 else (other, one):
            started = clock()
            work(turn)
            took[work] = clock() - started
        ratios.append(took[one] / took[other])
    return ratios
