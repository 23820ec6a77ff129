"""Kill a random rank of a run at a random moment, let it go on, and compare its log with an undisturbed run's.

PYTHONPATH=.:tests python tests/run/kill_many.py --times 20 [--seed 0]

With --seed 11, on two cores: 20 of 20 logs were equal to the undisturbed run's to the last digit. Of the ranks, 7 were
killed while starting, 7 in a step and 6 in a save; all processes were gone after 1.8 to 8.0 s.
"""

import argparse
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from pipelines.engine.ports import free_port
from support import runs
from support.ends import wait_for
from support.launch import REPO, checked, deepspeed, environment

STEPS, EVERY = 9, 3
MOMENTS = ("start", "step", "save")


def command(shards: Path, output: Path) -> tuple[str, ...]:
    return ("pipelines/train.py", "--config", runs.CONFIG, *runs.options(shards, output, STEPS, EVERY))


def undisturbed(shards: Path, output: Path) -> list[dict]:
    """The log of a run of two ranks that nobody disturbs, but for its rates."""
    checked(deepspeed(2, *command(shards, output)))
    return runs.without_rates(runs.log_of(output))


def kill_and_resume(moment: str, draw: random.Random, shards: Path, output: Path) -> str:
    """A run of two ranks of which one is killed with SIGKILL, then started again to its end; returns what happened.

    Args:
        moment: while ``start``-ing, at any time in a ``step``, or in a ``save``.
        draw: which rank, which step, and how long after it.
    """
    rank = draw.randrange(2)
    port = ("--master_port", str(free_port()))
    run = subprocess.Popen(
        ["deepspeed", "--num_gpus", "2", *port, *command(shards, output)],
        cwd=REPO, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: len(runs.ranks(output)) == 2, 60)
    victim = runs.ranks(output)[rank]
    if moment == "start":
        time.sleep(draw.uniform(0, 12))
    elif moment == "step":
        step = draw.randrange(1, STEPS)
        wait_for(lambda: runs.steps_done(output) >= step, 300)
        time.sleep(draw.uniform(0, 1))
    else:
        step = draw.randrange(EVERY, STEPS, EVERY)
        wait_for(lambda: saves_begun(output) >= step // EVERY, 300)
        time.sleep(draw.uniform(0, 0.1))
    done, saves = runs.steps_done(output), saves_begun(output) - saves_complete(output)
    victim.kill()
    killed = time.monotonic()
    wait_for(lambda: not runs.processes(output), 60)
    run.wait()
    gone = time.monotonic() - killed
    checked(deepspeed(2, *command(shards, output)))
    during = f"{moment}, {done} steps done" + (", a save begun" if saves else "")
    return f"rank {rank} killed in {during}; all gone after {gone:.1f} s"


def saves_begun(output: Path) -> int:
    return len(list(output.glob("checkpoints/*")))


def saves_complete(output: Path) -> int:
    return len(list(output.glob("checkpoints/*/COMPLETE")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-many-"))
    try:
        shards = runs.make_shards(folder)
        expected = undisturbed(shards, folder / "undisturbed")
        equal = 0
        for time_ in range(arguments.times):
            output, draw = folder / str(time_), random.Random(f"{arguments.seed}/{time_}")
            story = kill_and_resume(MOMENTS[time_ % len(MOMENTS)], draw, shards, output)
            same = runs.without_rates(runs.log_of(output)) == expected
            equal += same
            print(f"{time_ + 1:3}: {story}; log {'equal' if same else 'DIFFERENT'}", flush=True)
            shutil.rmtree(output)
        print(f"{equal} of {arguments.times} logs equal to the undisturbed run's")
    finally:
        shutil.rmtree(folder)
    raise SystemExit(equal < arguments.times)


if __name__ == "__main__":
    main()
