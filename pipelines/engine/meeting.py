"""Waits until all ranks of a run have come, for minutes. The process group itself has the patience of a long task.

Each rank counts itself in the store at MASTER_ADDR and MASTER_PORT, which rank 0 keeps, or torchrun.
"""

import os
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist

from pipelines.cli.launcher import local_rank, rank_and_ranks
from vtok.config import ConfigError

PATIENCE = 600.0  # seconds
NOTICE = 30.0  # seconds after which a line says that ranks are missing
TICK = 0.2  # seconds between two looks


def meet() -> dist.Store:
    """Waits for all ranks. Each rank calls this, with torchrun's variables in its environment.

    Returns:
        The store. The process group uses the same one, if rank 0 keeps it until the group exists.

    Raises:
        ConfigError: Ranks are missing after ``PATIENCE``, or the one that kept the store has ended.
        DistNetworkError: The port is in use.
    """
    rank, ranks = rank_and_ranks()
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    # torchrun may keep its store when it starts the ranks again.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    names, everyone = [f"came/{attempt}/{number}" for number in range(ranks)], f"came/{attempt}/all"
    store = store_of(rank, address)
    try:
        store.set(names[rank], "")
        if store.add(f"came/{attempt}", 1) >= ranks:
            store.set(everyone, "")
        if not comes(lambda: store.check([everyone]), address, says=rank == 0):
            missing = [number for number, name in enumerate(names) if not store.check([name])]
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ConfigError(
                f"{ranks - len(missing)} of {ranks} ranks came to {address} in {PATIENCE:g} s, without rank "
                f"{missing[0]}{others}: see why it did not start, or whether it has another MASTER_ADDR or MASTER_PORT"
            )
    except dist.DistNetworkError as error:
        raise ConfigError(f"the process that kept the store at {address} ended before all ranks came") from error
    return store


def store_of(rank: int, address: str) -> dist.TCPStore:
    """Connects to the store. Rank 0 makes it, unless torchrun has.

    Raises:
        ConfigError: Nobody answers within ``PATIENCE``.
        DistNetworkError: The port is in use, or what listens there is no store.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    makes = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    # torch would wait, too, but it prints its C++ frames.
    if not makes and not comes(lambda: is_open(host, port), address, says=local_rank() == 0):
        raise ConfigError(
            f"nobody answers at {address} since {PATIENCE:g} s: see why rank 0 did not start; MASTER_ADDR and "
            "MASTER_PORT must be those of its machine, and the network must let them through"
        )
    patience = timedelta(seconds=PATIENCE)
    return dist.TCPStore(host, port, None, makes, patience, wait_for_workers=False, multi_tenant=True)


def is_open(host: str, port: int) -> bool:
    """Whether somebody listens at a port."""
    try:
        socket.create_connection((host, port), timeout=NOTICE).close()
        return True
    except OSError:
        return False


def comes(condition: Callable[[], bool], address: str, says: bool) -> bool:
    """Waits for a condition. Returns whether it came within ``PATIENCE``.

    Args:
        condition: Whether the wait is over.
        address: Where the ranks meet.
        says: Whether this rank says once on stderr that it waits.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > PATIENCE:
            return False
        if says and waited > NOTICE:
            print(f"waiting for the other ranks at {address}", file=sys.stderr, flush=True)
            says = False
        time.sleep(TICK)
    return True
