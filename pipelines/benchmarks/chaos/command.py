"""Disturbs runs for a stated time and judges their ends."""

import json
import random
import shutil
import tempfile
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from data_tools.errors import DataError
from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from pipelines.benchmarks.chaos import KEPT
from pipelines.benchmarks.chaos.disturbances import KINDS, Setting
from pipelines.benchmarks.chaos.ranks import Ranks, log_of, preload

MOST_STARTS = 6  # of one run
CLIPS = 22


class End(NamedTuple):
    """How a disturbed run ended.

    Attributes:
        kind: The kind of disturbance.
        done: What was done to it.
        starts: How often it was started until its end.
        lines: The errors that its ranks printed.
        faults: What is wrong with it: its log is not the undisturbed run's, an error without a line, a traceback.
        seconds: From its first start to its end.
    """

    kind: str
    done: str
    starts: int
    lines: list[str]
    faults: list[str]
    seconds: float


def chaos(arguments: Namespace) -> bool:
    """Disturbs runs until the time is up, at least once in each way. Returns whether all ended like an undisturbed one.

    Raises:
        DataError: A kind is unknown.
    """
    kinds = arguments.only or list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        raise DataError(f"unknown kinds {', '.join(sorted(unknown))}: choose among {', '.join(KINDS)}")
    folder, began = Path(tempfile.mkdtemp(prefix="chaos-")), time.monotonic()
    ends: list[End] = []
    try:
        preload(folder)
        setting, expected = undisturbed(folder, ["--train.sequence_parallel", "2"] if arguments.shared else [])
        print(f"the undisturbed run took {setting.seconds:.0f} s and {setting.writes} writes", flush=True)
        while len(ends) < len(kinds) or time.monotonic() - began < 60 * arguments.minutes:
            kind = kinds[len(ends) % len(kinds)]
            draw, output = random.Random(f"{arguments.seed}/{len(ends)}"), folder / f"run-{len(ends)}"
            ends.append(disturbed(kind, setting, output, draw, expected))
            print(line_of(len(ends), ends[-1]), flush=True)
            for path in folder.glob(f"{output.name}*"):
                shutil.rmtree(path, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = summary(ends, time.monotonic() - began, arguments.seed)
    print(json.dumps(found, indent=2))
    if arguments.keep:
        KEPT.write_text(json.dumps(found, indent=2).replace(f"{folder}/", "") + "\n")  # no path of this machine
    return not found["failed"]


def undisturbed(folder: Path, options: list[str]) -> tuple[Setting, list[dict]]:
    """Makes the data and runs once in peace. Returns what disturbances need to know, and the log.

    Args:
        folder: Where data and runs lie.
        options: Further options of the runs.
    """
    render_clips(folder / "clips", CLIPS, seed=5)
    build_shards(folder / "clips", folder / "shards", samples_per_shard=5, progress=False)
    output = folder / "undisturbed"
    options = ["--data.shards", str(folder / "shards"), *options]
    ranks = Ranks(options, output, {"FAULT_FOLDER": str(output)})
    if any(codes := ranks.ended()):
        raise RuntimeError(f"the undisturbed run ended with {codes}: {ranks.errors()}")
    return Setting(options, time.monotonic() - ranks.started, ranks.writes()), log_of(output)


def disturbed(kind: str, setting: Setting, output: Path, draw: random.Random, expected: list[dict]) -> End:
    """Starts a run, disturbs it, starts it again until its end, and judges it."""
    started, lines, faults, starts = time.monotonic(), list[str](), list[str](), 1
    done = ""
    try:
        ranks, done = KINDS[kind](setting, output, draw)
        while any(codes := ranks.ended()) and starts < MOST_STARTS:
            told = ranks.errors()
            lines += told
            faults += wrong_with(codes, told)
            ranks, starts = Ranks(setting.options, output), starts + 1
        if any(codes):
            faults.append(f"it does not reach its end: {codes}, {ranks.errors()}")
        elif log_of(output) != expected:
            faults.append("its log is not the undisturbed run's")
    except RuntimeError as error:
        faults.append(str(error))
    return End(kind, done, starts, lines, faults, round(time.monotonic() - started, 1))


def wrong_with(codes: list[int], lines: list[str]) -> list[str]:
    """Judges the end of one start by its exit codes and the errors that it printed."""
    if "Traceback (most recent call last):" in lines:
        return [f"a traceback, exit codes {codes}"]
    if {2, 74} & set(codes) and len(lines) != 1:
        return [f"{len(lines)} lines of errors, exit codes {codes}: {lines}"]
    if 1 in codes and 2 not in codes and not lines:
        return [f"no line of error, exit codes {codes}"]
    return []


def line_of(number: int, end: End) -> str:
    judged = "; ".join(end.faults) or "log equal"
    return f"{number:3} {end.kind}: {end.done}; {end.starts} starts, {end.seconds:.0f} s: {judged}"


def summary(ends: list[End], seconds: float, seed: int) -> dict:
    """Returns the figures: of all and by kind, with the failures in words."""
    tried, failed = Counter(end.kind for end in ends), Counter(end.kind for end in ends if end.faults)
    return {
        "minutes": round(seconds / 60, 1),
        "seed": seed,
        "disturbed": len(ends),
        "equal to the undisturbed run": len(ends) - sum(failed.values()),
        "starts": sum(end.starts for end in ends),
        "kinds": {kind: {"tried": tried[kind], "equal": tried[kind] - failed[kind]} for kind in sorted(tried)},
        "failed": [f"{end.kind}: {end.done}: {'; '.join(end.faults)}" for end in ends if end.faults],
    }
