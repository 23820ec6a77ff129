"""What a build costs, measured: ratios of its two sides, which take turns in going first."""

from itertools import count
from pathlib import Path

from data_tools.packing import build_shards
from data_tools.video.decode import opened, validate
from pipelines.benchmarks.paired import cpu_seconds, ratio, wall_seconds
from pipelines.benchmarks.processes import together


def building(folder: Path, clip: bytes, clips: int = 32, repeats: int = 5) -> float:
    """Clips per second of one build with two workers over those of two builds with one worker each, run together."""
    for name, number in (("whole", clips), ("left", clips // 2), ("right", clips // 2)):
        write_clips(folder / name, clip, number)

    fresh = (folder / f"built-{number}" for number in count())

    def two_workers() -> None:
        together(build, [(folder / "whole", next(fresh), 2)])

    def two_builds() -> None:
        together(build, [(folder / name, next(fresh), 1) for name in ("left", "right")])

    return ratio(wall_seconds(two_builds), wall_seconds(two_workers), repeats)


def validating(clip: bytes, clips: int = 4, repeats: int = 7) -> float:
    """CPU time of validating a clip over that of one full decode of it."""

    def decode() -> None:
        for _ in range(clips):
            with opened(clip) as stream:
                for packet in stream.container.demux(stream):
                    for _ in packet.decode():
                        pass

    def check() -> None:
        for _ in range(clips):
            validate(clip)

    return ratio(cpu_seconds(check), cpu_seconds(decode), repeats)


def write_clips(folder: Path, clip: bytes, clips: int) -> None:
    """A folder of equal clips, an input for a build."""
    folder.mkdir()
    for number in range(clips):
        (folder / f"{number:03d}.mp4").write_bytes(clip)
    rows = [f"{number:03d}.mp4,It drifts." for number in range(clips)]
    (folder / "captions.csv").write_text("\n".join(["path,caption", *rows]))


def build(source: Path, output: Path, workers: int) -> None:
    build_shards(source, output, 4, False, workers=workers)
