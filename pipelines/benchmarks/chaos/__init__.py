"""Chaos: a small run on two ranks is disturbed at random, again and again, and must end like the undisturbed one.

faults.c        makes writes fail and sets the clock back, preloaded into the ranks
ranks.py        starts the ranks of a run, and starts them again after an end, as slurm/train.sh does
disturbances.py what happens to a run
command.py      draws disturbances for a stated time, and judges the ends
"""

import argparse
from pathlib import Path

KEPT = Path(__file__).parents[1] / "chaos.json"


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Parses the arguments after ``bench.py chaos``."""
    parser = argparse.ArgumentParser(prog="bench chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60, help="the longest, but each kind comes once (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--only", nargs="+", metavar="KIND", help="kinds of disturbances; all by default")
    parser.add_argument("--shared", action="store_true", help="the two ranks share each sample: sequence parallelism")
    parser.add_argument("--keep", action="store_true", help=f"store the figures in {KEPT.name}")
    return parser.parse_args(argv)
