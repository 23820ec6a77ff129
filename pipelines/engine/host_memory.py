"""Measures the available host memory, within the limits of a container or a batch job."""

from collections.abc import Iterator
from pathlib import Path

import psutil

# Files of a control group: its limit, its use, and the statistic that counts the reclaimable part of the use.
CGROUPS = Path("/sys/fs/cgroup")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available() -> int:
    """Returns the bytes that this process can still allocate without swapping, within all its limits."""
    return min([psutil.virtual_memory().available, *limits_left(CGROUPS, Path("/proc/self/cgroup"))])


def limits_left(root: Path, own: Path) -> Iterator[int]:
    """Yields the bytes left under the limit of each control group of this process and of the groups around it.

    Args:
        root: Folder at which control groups are mounted.
        own: File that lists the control groups of this process, one line ``NUMBER:CONTROLLERS:PATH`` each.
    """
    for line in own.read_text().splitlines() if own.is_file() else ():
        _, controllers, path = line.split(":", 2)
        version_2 = not controllers
        if not version_2 and "memory" not in controllers.split(","):
            continue
        top = root if version_2 else root / "memory"
        inside = top / path.lstrip("/")
        for group in (inside, *inside.parents):
            if group.is_relative_to(top):
                yield from left_in(group, *(VERSION_2 if version_2 else VERSION_1))


def left_in(group: Path, limit: str, used: str, reclaimable: str) -> Iterator[int]:
    """Yields the bytes left in one control group, if it has a limit."""
    try:
        most, now = (group / limit).read_text().strip(), int((group / used).read_text())
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:  # the root group has no limit, and a container may not see the groups around it
        return
    if most != "max":
        yield max(0, int(most) - now + int(counts.get(reclaimable, 0)))
