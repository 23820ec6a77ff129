"""Whether an MPEG transport stream lacks packets where its counters do not run on.

Each packet belongs to a part of the programme, its PID, and carries a counter of that PID. A break of the counter is a
hole, or the place where recordings were joined end to end. A recording begins with its tables. Behind them every PID
begins anew, and counts from 0.
"""

from pathlib import Path

import numpy as np

LAYOUTS = ((188, 0), (192, 4), (204, 0))  # (bytes of a packet, where its head begins): plain, with a time, a checksum
SYNC = 0x47  # the first byte of a head
ALIKE = 4  # packets whose heads must begin with `SYNC`, to tell the layout
BEHIND = 20_000  # packets that are looked at: enough for some frames, and for every PID to come
TABLES = 0  # the PID of the table with which a recording begins (PAT)
PARTS = range(32, 0x1FFF)  # the PIDs of the programme; those below are of further tables, the last is of stuffing
FRAMES = 3  # that begin from the frame that FFmpeg calls damaged to the break, at most: its parser is one frame behind


def is_join(source: bytes | str | Path, pid: int, at: int | None) -> bool:
    """Whether recordings were joined at the next break of a PID's counter.

    Args:
        source: the file.
        pid: of the video.
        at: where the frame begins that FFmpeg calls damaged, bytes; None or negative if it does not tell.
    """
    if at is None or at < 0:
        return False
    heads = _heads(source, at)
    pids, counts = (heads[:, 1] & 0x1F) * 256 + heads[:, 2], heads[:, 3] & 15
    damaged, begins = heads[:, 1] & 0x80 > 0, heads[:, 1] & 0x40 > 0
    filled = (heads[:, 3] & 0x10 > 0) & ((pids == TABLES) | np.isin(pids, PARTS))
    own = np.flatnonzero((pids == pid) & filled)
    breaks = 1 + np.flatnonzero(np.diff(counts[own]) % 16 != 1)
    if not breaks.size or begins[own[: breaks[0] + 1]].sum() > FRAMES or damaged[: own[breaks[0]]].any():
        return False
    last, first = own[breaks[0] - 1], own[breaks[0]]  # packets of the PID before and behind the break
    tables = last + np.flatnonzero((pids[last:first] == TABLES) & begins[last:first])
    if not tables.size:
        return False
    end = own[breaks[1]] if len(breaks) > 1 else len(pids)
    later = tables[-1] + np.flatnonzero(filled[tables[-1] : end])
    firsts = later[np.unique(pids[later], return_index=True)[1]]
    return bool(begins[firsts].all() and not counts[firsts].any())


def _heads(source: bytes | str | Path, at: int) -> np.ndarray:
    """The heads, four bytes each, of the packets from a byte on, int (n, 4); none if no packet is there."""
    length = BEHIND * max(size for size, _ in LAYOUTS)
    if isinstance(source, bytes):
        data = source[at : at + length]
    else:
        with Path(source).open("rb") as file:
            file.seek(at)
            data = file.read(length)
    for size, head in LAYOUTS:
        packets = np.frombuffer(data, np.uint8, len(data) // size * size).reshape(-1, size)
        if len(packets) >= ALIKE and (packets[:ALIKE, head] == SYNC).all():
            return packets[:, head : head + 4].astype(int)
    return np.empty((0, 4), int)
