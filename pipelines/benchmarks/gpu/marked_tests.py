"""The tests that only a GPU can run, by pytest in a process of its own."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.sizes import Sizes

ROOT = Path(__file__).parents[3]
MARKER = "mark.gpu"
LAST = 1500  # characters of a failure that are kept


class Outcome(NamedTuple):
    """Of a test: ``passed``, ``failed`` or ``skipped``, its seconds, and the end of what it failed with."""

    name: str
    outcome: str
    seconds: float
    reason: str


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    """Each test as it ends, then how many passed, failed and were skipped; several run at a time.

    Raises:
        AssertionError: a test failed.
    """
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if MARKER in path.read_text()]
    arguments = [*files, "-m", "gpu", "-n", "0" if sizes.tiny else "6", "--dist", "load"]
    counts, failures = Counter(), []
    for name, outcome, seconds, reason in outcomes(arguments, "spawn" if device.type == "cuda" else "fork"):
        counts[outcome] += 1
        yield Finding(name, seconds if outcome == "passed" else None, "s", note=outcome)
        if outcome == "failed":
            failures.append(f"{name}: {reason}")
    for outcome in ("passed", "failed", "skipped"):
        yield Finding(f"tests {outcome}", counts[outcome], "tests")
    if failures or not counts:
        raise AssertionError("\n".join(failures) or "pytest ran no test")


def outcomes(arguments: list[str], start: str) -> Iterator[Outcome]:
    """What becomes of each test, as it ends.

    Args:
        arguments: pytest's.
        start: how its process is: by ``fork`` it has all that is imported here.
    """
    context = multiprocessing.get_context(start)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run_pytest, args=(arguments, theirs))
    process.start()
    theirs.close()
    try:
        while True:
            yield ours.recv()
    except EOFError:
        process.join()


def run_pytest(arguments: list[str], connection: Connection) -> None:
    os.chdir(ROOT)
    os.dup2(2, 1)  # what pytest prints is a log
    pytest.main(["-p", "no:cacheprovider", *arguments], plugins=[Telling(connection)])


class Telling:
    """A plugin that sends the outcomes on."""

    def __init__(self, connection: Connection):
        self.connection = connection

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test's own phase tells, or one before or after it that went otherwise."""
        if report.when == "call" or not report.passed:
            name = report.nodeid.partition("::")[2]
            self.connection.send(Outcome(name, report.outcome, report.duration, report.longreprtext[-LAST:]))
