"""The order of numbered files: by the numbers in their names, however many digits these have."""

import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import PurePath
from typing import TypeVar

P = TypeVar("P", bound=PurePath)

COUNTS, TIMES = re.compile(r"([0-9]+)"), re.compile(r"([0-9]+(?:\.[0-9]+)?)")


def naturally_sorted(paths: Iterable[P]) -> list[P]:
    """Sort paths by the numbers in their names without endings: `frame_9.png` before `frame_10.jpg`.

    A dot between digits is a decimal point, as in `0.5.jpg`, a time in seconds. It is not if two names would then have
    the same number: `1.1.jpg` and `1.10.jpg` are counted. Numbers come before letters, whose case does not matter.
    """
    paths = sorted(paths)
    counts, times = ([_key(path.stem, numbers) for path in paths] for numbers in (COUNTS, TIMES))
    keys = times if len(set(times)) == len(set(counts)) else counts
    order = sorted(range(len(paths)), key=keys.__getitem__)
    return [paths[index] for index in order]


def _key(stem: str, numbers: re.Pattern[str]) -> tuple[str | Decimal, ...]:
    """Text and number in turns, text first, so that two keys compare like with like."""
    parts = numbers.split(stem.casefold())
    return tuple(Decimal(part) if index % 2 else part for index, part in enumerate(parts))
