"""Runs parts one after another, each in a process of its own, so that none can take the others with it.

A process that hangs is ended, one that dies leaves what it had found, and each starts with an empty GPU. The next one
imports its libraries while the present one measures.
"""

import importlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection

import torch

from pipelines.benchmarks.gpu.findings import CUT_SHORT, DONE, FAILED, SKIPPED, Finding, Result
from pipelines.benchmarks.gpu.parts import Part
from pipelines.benchmarks.gpu.sizes import Sizes

LAST_LINES = 12  # of a traceback that are kept
START = "spawn" if torch.cuda.is_available() else "fork"  # a process that has used CUDA must not be forked

# What a process of a part says when it has nothing more to find: its state and the reason.
Ended = tuple[str, str]


class Process:
    """A part's process, its libraries imported or being so; it begins when it is told to."""

    def __init__(self, part: Part, sizes: Sizes, package: str):
        context = multiprocessing.get_context(START)
        self.part = part
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=measure, args=(theirs, f"{package}.{part.name}", sizes))
        self.process.start()
        theirs.close()

    def run(self, seconds: float, found: Callable[[Finding], None]) -> Ended:
        """Its findings, each as it comes; for at most so many seconds."""
        end = time.monotonic() + seconds
        try:
            self.connection.send(None)
            while self.connection.poll(max(0.0, end - time.monotonic())):
                message = self.connection.recv()
                if not isinstance(message, Finding):
                    return message
                found(message)
            return CUT_SHORT, f"it was given {seconds:.0f} s"
        except (EOFError, OSError):
            self.process.join()
            return FAILED, f"its process ended with exit code {self.process.exitcode}"
        finally:
            self.end()

    def end(self) -> None:
        """End it with all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()


def measure(connection: Connection, module: str, sizes: Sizes) -> None:
    """The process of a part."""
    os.setpgrp()
    try:
        part = importlib.import_module(module)
        connection.recv()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for finding in part.findings(sizes, device):
            connection.send(finding)
        connection.send((DONE, ""))
    except ModuleNotFoundError as error:
        connection.send((SKIPPED, str(error)))
    except Exception:
        connection.send((FAILED, "\n".join(traceback.format_exc().splitlines()[-LAST_LINES:])))


def run_parts(
    parts: Iterable[Part],
    sizes: Sizes,
    end: float,
    tell: Callable[[str, Result], None],
    package: str = "pipelines.benchmarks.gpu",
) -> None:
    """Run what fits into the time.

    Args:
        end: when it must be over, by ``time.monotonic``.
        tell: is given a part's name and what is known of it, whenever that changes.
        package: where the parts' modules lie.
    """
    waiting, ahead = list(parts), None
    if START == "fork":  # imported once for all; what is missing is told by the part that needs it
        for name in ("torch._dynamo", "deepspeed", *(f"{package}.{part.name}" for part in waiting)):
            with suppress(Exception):
                importlib.import_module(name)
    try:
        while waiting:
            part = waiting.pop(0)
            result, left = Result(part.title), end - time.monotonic()
            if left < part.usual * sizes.patience:
                result.state, result.reason = SKIPPED, f"{max(0, left):.0f} s were left, it takes {part.usual:.0f}"
                tell(part.name, result)
                continue
            process = ahead if ahead and ahead.part is part else Process(part, sizes, package)
            ahead = Process(waiting[0], sizes, package) if waiting else None
            started = time.monotonic()

            def found(finding: Finding) -> None:
                result.findings.append(finding)
                tell(part.name, result)

            left = end - started
            result.state, result.reason = process.run(left if sizes.tiny else min(part.most, left), found)
            result.seconds = round(time.monotonic() - started, 2)
            tell(part.name, result)
    finally:
        if ahead:
            ahead.end()
