"""Host memory that can still be had, within the limits of a container or of a batch job."""

from collections.abc import Iterator
from pathlib import Path

import psutil

# A control group's files: its limit, what it uses, and what of that the system takes back when it needs memory.
CGROUPS = Path("/sys/fs/cgroup")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available() -> int:
    """Bytes that can be had on this machine without swapping, within every limit that this process is under."""
    return min([psutil.virtual_memory().available, *limits_left(CGROUPS, Path("/proc/self/cgroup"))])


def limits_left(root: Path, own: Path) -> Iterator[int]:
    """Bytes that are left of the limit of each control group this process is in, with those around them.

    Args:
        root: where control groups are mounted.
        own: the file that lists this process's, ``NUMBER:CONTROLLERS:PATH`` each.
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
    """Bytes left in one control group, if it has a limit."""
    try:
        most, now = (group / limit).read_text().strip(), int((group / used).read_text())
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:  # the topmost group has none, and a container may not see those around it
        return
    if most != "max":
        yield max(0, int(most) - now + int(counts.get(reclaimable, 0)))
