"""Figures of this machine and this version, each with what it should be.

python pipelines/bench.py data [--json]         reading, decoding, loading, resuming; about four minutes
python pipelines/bench.py checkpoint [--json]   how long a save holds up training; a minute, 4 GB of memory
python pipelines/bench.py tokeniser [--json]    frames to tokens against CLIP alone
python pipelines/bench.py step [--json]         an optimiser step against its modules, and under DeepSpeed; 8 GB
python pipelines/bench.py prefill [--json]      reading videos of 5 to 120 s against S tokens a frame
python pipelines/bench.py sample [--json]       visual tokens with a cache against bare cached decoding
python pipelines/bench.py vidtok [--json]       VidTok's network against the plain arrangement of it
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
from pipelines.benchmarks import build, checkpoint, data, prefill, sample, step, tokeniser, vidtok
from pipelines.benchmarks.models import SMALL
from pipelines.config import die


class Figure(NamedTuple):
    """A measured value and its bound, ``at_least`` or ``at_most``; without one it is only reported."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    @property
    def bound(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least}"
        return "" if self.at_most is None else f"<= {self.at_most}"


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


def tokeniser_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure the tokeniser; ``quick`` only shows that it runs."""
    torch.set_num_threads(1)
    ours = tokeniser.tokenising(**({"image_size": 56, "repeats": 1} if quick else {}))
    yield Figure("frames to tokens / bare CLIP to its layer -2, frames/s", ours, at_least=0.95)


def step_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure a training step; ``quick`` only shows that it runs."""
    torch.set_num_threads(1)
    options = {"size": SMALL, "clips": 2, "repeats": 1} if quick else {}
    with tempfile.TemporaryDirectory() as name:
        found = step.stepping(Path(name), **options)
        yield Figure("loss and backward / its modules alone, CPU time", found["modules"], at_most=1.05)
        yield Figure("tokens of the language model in that step", found["tokens"])
        yield Figure("passes of the language model in a step", found["passes"], at_most=1)
        yield Figure("share of its tokens that are padding", found["wasted"], at_most=0.02)
        yield Figure("packed rows / padded rows, CPU time", found["packed"], at_most=1)
        yield Figure("DiT without a mask of ones / with it, CPU time", found["unmasked"])
        sharded = step.under_deepspeed(Path(name), **options)
        yield Figure("step with ZeRO-3 on one rank / plain PyTorch, CPU time", sharded, at_most=1.15)


def prefill_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure reading videos of growing length; ``quick`` only shows that it runs."""
    torch.set_num_threads(1)
    lengths = (1, 2) if quick else (5, 15, 30, 60, 120)
    with tempfile.TemporaryDirectory() as name:
        found = prefill.prefilling(Path(name), lengths, **({"size": SMALL} if quick else {}))
    for seconds, one in found.items():
        yield Figure(f"{seconds} s of video, vtok / frames: tokens", one.tokens)
        yield Figure(f"{seconds} s of video, vtok / frames: CPU time", one.seconds)
        yield Figure(f"{seconds} s of video, vtok / frames: keys and values", one.cache)
    yield Figure(f"visual tokens a frame, {lengths[-1]} s", found[lengths[-1]].tokens_per_frame, at_most=1.05)


def sample_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure the sampling of visual tokens; ``quick`` only shows that it runs."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        ours = sample.sampling(Path(name), **({"size": SMALL, "motion_tokens": 2, "repeats": 1} if quick else {}))
    yield Figure("visual tokens / bare cached decoding, CPU time", ours, at_most=1.1)


def vidtok_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure VidTok's encoder and decoder; ``quick`` only shows that it runs."""
    torch.set_num_threads(1)
    options = {"ch": 8, "frames": 5, "size": 16, "repeats": 1} if quick else {}
    for version in ("", "_v1_1"):
        speed = vidtok.against_plain(f"vidtok_kl_causal_488_4chn{version}", **options)
        for part, value in speed._asdict().items():
            yield Figure(f"VidTok {'1.1' if version else '1.0'}, plain / ours, {part}, CPU time", value, at_least=1.5)


PARTS = {
    "data": data_figures,
    "checkpoint": checkpoint_figures,
    "tokeniser": tokeniser_figures,
    "step": step_figures,
    "prefill": prefill_figures,
    "sample": sample_figures,
    "vidtok": vidtok_figures,
}


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
            print(
                f"{figure.name:56}{figure.value:10.3f}   {figure.bound:8}{'' if figure.met else '   missed'}",
                flush=True,
            )
        yield figure


if __name__ == "__main__":
    main(sys.argv[1:])
