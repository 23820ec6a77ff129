"""What happens to a run: each function starts one and disturbs it. The draw decides when, where and how much.

Each returns the start and words for what was done. The command then waits for the end, starts the run again where a
scheduler would, and compares the logs.
"""

import errno
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from pipelines.benchmarks.chaos.ranks import EVERY, STEPS, Ranks


class Setting:
    """What disturbances know of the undisturbed run.

    Args:
        options: Options of the runs, the data's among them.
        seconds: How long it took.
        writes: Writes of a rank to its folder.
    """

    def __init__(self, options: list[str], seconds: float, writes: int):
        self.options, self.seconds, self.writes = options, seconds, writes


Disturbance = Callable[[Setting, Path, random.Random], tuple[Ranks, str]]


def killed(setting: Setting, output: Path, draw: random.Random) -> tuple[Ranks, str]:
    """A rank is killed at any time."""
    ranks, rank = Ranks(setting.options, output), draw.randrange(2)
    time.sleep(draw.uniform(0, setting.seconds))
    return ranks, f"rank {rank} killed after {_signalled(ranks, [rank], signal.SIGKILL)}"


def killed_in_step(setting: Setting, output: Path, draw: random.Random) -> tuple[Ranks, str]:
    """A rank is killed between two steps or in one."""
    ranks, rank = Ranks(setting.options, output), draw.randrange(2)
    _await(ranks, Ranks.steps, draw.randrange(1, STEPS))
    time.sleep(draw.uniform(0, 1))
    return ranks, f"rank {rank} killed after {_signalled(ranks, [rank], signal.SIGKILL)}"


def killed_in_save(setting: Setting, output: Path, draw: random.Random) -> tuple[Ranks, str]:
    """A rank is killed soon after a save has begun."""
    ranks, rank = Ranks(setting.options, output), draw.randrange(2)
    _await(ranks, Ranks.saves, draw.randrange(1, STEPS // EVERY))
    time.sleep(draw.uniform(0, 0.1))
    return ranks, f"rank {rank} killed in save {ranks.saves()}, {_signalled(ranks, [rank], signal.SIGKILL)}"


def stopped(setting: Setting, output: Path, draw: random.Random) -> tuple[Ranks, str]:
    """A rank hangs after a step."""
    ranks, rank = Ranks(setting.options, output), draw.randrange(2)
    _await(ranks, Ranks.steps, draw.randrange(1, STEPS))
    return ranks, f"rank {rank} stopped after {_signalled(ranks, [rank], signal.SIGSTOP)}"


def asked(setting: Setting, output: Path, draw: random.Random) -> tuple[Ranks, str]:
    """A scheduler asks the run to save and stop, at any time: all ranks, or one."""
    ranks, asked = Ranks(setting.options, output), draw.choice([[0], [1], [0, 1]])
    number = draw.choice([signal.SIGUSR1, signal.SIGTERM])
    time.sleep(draw.uniform(0, setting.seconds))
    return ranks, f"{number.name} to ranks {asked} after {_signalled(ranks, asked, number)}"


def loader_killed(setting: Setting, output: Path, draw: random.Random) -> tuple[Ranks, str]:
    """The system kills loader processes, and the run goes on."""
    ranks, deaths = Ranks(setting.options, output), 0
    for step in sorted(draw.sample(range(1, STEPS), 3)):
        _await(ranks, Ranks.steps, step)
        if loaders := ranks.loaders():
            with suppress(psutil.NoSuchProcess):
                draw.choice(loaders).kill()
                deaths += 1
    return ranks, f"{deaths} loader processes killed"


def loader_stopped(setting: Setting, output: Path, draw: random.Random) -> tuple[Ranks, str]:
    """A loader process hangs, and the run goes on."""
    ranks = Ranks(setting.options, output)
    _await(ranks, Ranks.steps, draw.randrange(1, STEPS - 1))
    if loaders := ranks.loaders():
        with suppress(psutil.NoSuchProcess):
            draw.choice(loaders).suspend()
    return ranks, f"a loader process stopped after {ranks.steps()} steps"


def full_disk(setting: Setting, output: Path, draw: random.Random) -> tuple[Ranks, str]:
    """The disk is full, for a moment or from now on."""
    return _failing(setting, output, draw, errno.ENOSPC)


def broken_disk(setting: Setting, output: Path, draw: random.Random) -> tuple[Ranks, str]:
    """Writes fail, for a moment or from now on."""
    return _failing(setting, output, draw, errno.EIO)


def flipped_bit(setting: Setting, output: Path, draw: random.Random) -> tuple[Ranks, str]:
    """The run is stopped, and a bit of its newest checkpoint flips before it goes on."""
    ranks = Ranks(setting.options, output)
    _await(ranks, Ranks.steps, draw.randrange(2 * EVERY, STEPS))
    _signalled(ranks, [0, 1], signal.SIGUSR1)
    ranks.ended()
    newest = max(output.glob("checkpoints/*/COMPLETE")).parent
    path = draw.choice(sorted(path for path in newest.iterdir() if path.stat().st_size))
    place, bit = draw.randrange(path.stat().st_size), draw.randrange(8)
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))
    return Ranks(setting.options, output), f"bit {bit} of byte {place} flipped in {newest.name}/{path.name}"


def clock_back(setting: Setting, output: Path, draw: random.Random) -> tuple[Ranks, str]:
    """The clock of both ranks is set back while the run goes on."""
    back, after = draw.choice([60, 3600, 86400, 400 * 86400]), int(draw.uniform(0, setting.seconds))
    ranks = Ranks(setting.options, output, {"CLOCK_BACK": str(back), "CLOCK_AFTER": str(after)})
    return ranks, f"clock set back by {back} s after {after} s"


def started_twice(setting: Setting, output: Path, draw: random.Random) -> tuple[Ranks, str]:
    """The same command is started again while the run goes on; it must be refused in one line."""
    ranks = Ranks(setting.options, output)
    _await(ranks, Ranks.steps, draw.randrange(1, STEPS - 1))
    second = Ranks(setting.options, output)
    codes, lines = second.ended(), second.errors()
    refused = set(codes) <= {1, 2} and 2 in codes and len(lines) == 1 and "is in use by process" in lines[0]
    if not refused:
        raise RuntimeError(f"a second start was not refused: exit codes {codes}, {lines}")
    return ranks, f"a second start was refused while the first was in step {ranks.steps()}"


KINDS: dict[str, Disturbance] = {
    function.__name__: function
    for function in (
        killed, killed_in_step, killed_in_save, stopped, asked, loader_killed, loader_stopped, full_disk, broken_disk,
        flipped_bit, clock_back, started_twice,
    )
}  # fmt: skip


def _failing(setting: Setting, output: Path, draw: random.Random, number: int) -> tuple[Ranks, str]:
    at, count = draw.randrange(setting.writes), draw.choice([1, 3, 10**9])
    own = {"FAULT_FOLDER": str(output), "FAULT_ERRNO": str(number), "FAULT_AT": str(at), "FAULT_COUNT": str(count)}
    words = f"{count} writes from number {at} on" if count < 10**9 else f"all writes from number {at} on"
    return Ranks(setting.options, output, own), f"{errno.errorcode[number]} at {words} of each rank"


def _await(ranks: Ranks, reached: Callable[[Ranks], int], count: int) -> None:
    """Waits until so many steps are logged or saves begun, or a rank has ended."""
    while reached(ranks) < count and len(ranks.alive()) == len(ranks.processes):
        time.sleep(0.02)


def _signalled(ranks: Ranks, chosen: list[int], number: signal.Signals) -> str:
    """Sends a signal to some ranks. Returns how far the run was."""
    steps = ranks.steps()
    for rank in chosen:
        process = ranks.processes[rank]
        if process.is_alive() and process.pid:
            os.kill(process.pid, number)
    return f"{steps} steps and {time.monotonic() - ranks.started:.1f} s"
