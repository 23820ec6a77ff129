"""Figures of this machine and this version, each with what it should be.

python pipelines/bench.py data [--json]         reading, decoding, loading, resuming; about four minutes
python pipelines/bench.py checkpoint [--json]   how long a save holds up training; a minute, 4 GB of memory
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from data_tools.errors import DataError
from pipelines.benchmarks import build, checkpoint, data
from pipelines.config import die


class Figure(NamedTuple):
    """A measured value and its bound, one of ``at_least`` and ``at_most``."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        return self.value >= self.at_least if self.at_least is not None else self.value <= self.at_most


def data_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure the data side; ``quick`` only shows that everything runs."""
    once = {"repeats": 1} if quick else {}
    few = {"clips": 1, **once} if quick else {}
    torch.set_num_threads(1)
    clip = data.moving_clip(1.0, 12, 90, 160) if quick else data.moving_clip()
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(number)) for number in range(5)]
        for folder in folders:
            folder.mkdir()
        samples = {"samples": 8, "size": 10_000} if quick else {}
        yield Figure("reading by index / webdataset, samples per CPU-s", data.reading(folders[0], **samples, **once), 3)
        one = data.loading(folders[1], clip, both_views=False, **few)
        yield Figure("loader / bare decoder, tokeniser view, clips per CPU-s", one, 0.95)
        both = data.loading(folders[2], clip, both_views=True, **few)
        yield Figure("loader / bare decoder, both views, clips per CPU-s", both, 0.95)
        far = data.resuming(folders[3], clip, **({"rows": 20_000, "position": 19_000} if quick else {}))
        yield Figure("opening an index of 5 M rows, s", far["open_s"], at_most=1)
        yield Figure("the index, once a node, MB", far["index_mb"], at_most=200)
        yield Figure("reader and order in a process, MB", far["own_mb"], at_most=20)
        yield Figure("first batch after resuming at 4.9 M, s", far["first_batch_s"], at_most=2)
        two = build.building(folders[4], clip, **({"clips": 4, "repeats": 1} if quick else {}))
        yield Figure("a build with two workers / two builds with one, clips per s", two, 0.9)
        yield Figure("validation / one full decode, CPU time", build.validating(clip, **few), at_most=1.15)
        # The last, for decord's threads do not live through the forks of the loaders above.
        yield Figure("PyAV path / decord, CPU time", data.decoding(clip, **few), at_most=0.7)


def checkpoint_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure the engine's saving; ``quick`` only shows that it runs."""
    with tempfile.TemporaryDirectory() as name:
        save = checkpoint.saving(Path(name), **({"parameters": 1, "repeats": 1} if quick else {}))
    yield Figure("share of a save that training waits for", save["stalled"], at_most=0.1)


PARTS = {"data": data_figures, "checkpoint": checkpoint_figures}


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=list(PARTS), help="which part to measure")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    parser.add_argument("--quick", action="store_true", help="see that it runs: the values mean nothing")
    arguments = parser.parse_args(argv)
    try:
        measured = list(_shown(PARTS[arguments.what](arguments.quick), arguments.json))
    except (DataError, OSError, ImportError) as error:
        die("bench", error)
    if arguments.json:
        print(json.dumps([{**figure._asdict(), "met": figure.met} for figure in measured]))


def _shown(measured: Iterator[Figure], silent: bool) -> Iterator[Figure]:
    for figure in measured:
        if not silent:
            bound = f">= {figure.at_least}" if figure.at_least is not None else f"<= {figure.at_most}"
            print(f"{figure.name:56}{figure.value:10.3f}   {bound:8}{'' if figure.met else '   missed'}", flush=True)
        yield figure


if __name__ == "__main__":
    main(sys.argv[1:])
