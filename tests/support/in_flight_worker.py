"""A rank's loader on its own /dev/shm: how much of it the loader processes ever hold, beside what is planned for them.

unshare --mount in_flight_worker.py BATCH      mounts a small /dev/shm of its own first
"""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from torch.utils.data import Dataset

from data_tools.streaming.memory import blank, stacked
from pipelines.engine.batch_plan import BatchPlan
from pipelines.engine.loading.in_flight import bytes_in_flight
from pipelines.engine.loading.loader import micro_batches

WORKERS, SHAPE = 2, (1024, 1024)


class Samples(Dataset):
    def __getitem__(self, position):
        return blank(SHAPE).fill_(1)


def used() -> int:
    state = os.statvfs("/dev/shm")
    return (state.f_blocks - state.f_bfree) * state.f_frsize


batch = int(sys.argv[1])
planned = bytes_in_flight(1 << 20, batch, WORKERS)
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={2 * planned}", "tmpfs", "/dev/shm"], check=True)
before, most = used(), 0
plan = BatchPlan(batch, 1, batch, 1)
for number, frames in enumerate(micro_batches(Samples(), plan, WORKERS, end=30 * batch, collate=stacked)):
    end = time.monotonic() + (1.0 if number < 2 else 0.02)  # the loader fills up, then goes on as batches are taken
    while time.monotonic() < end:
        most = max(most, used() - before)
print(f"MOST {most} PLANNED {planned}")
