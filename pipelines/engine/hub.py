"""Fetches weights from the hub in one process per machine. The other processes read them from the cache.

Every file of a model costs a request, even if the cache has it. 64 ranks would send thousands of requests at once.
Inference has no process group. So the processes identify their launch by the launcher, which is the parent of all.
"""

import fcntl
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from huggingface_hub import constants

from data_tools.locks import NO_LOCKS
from pipelines.cli.launcher import rank_and_ranks
from vtok.assembly.build import build_framework, frozen_weights
from vtok.config import ModelConfig
from vtok.weights import shapes_of
from vtok.weights.shipped import folder_of


@contextmanager
def asked_once(config: ModelConfig) -> Iterator[None]:
    """Puts all files of a framework into the hub's cache, and switches the hub to offline within the context.

    It does nothing if the process is alone, if all weights are in folders, if the cache cannot be written or locked, or
    if nobody knows the launcher.

    Raises:
        ConfigError: The hub lacks a file.
    """
    named = [part.weights for part in (config.mllm, config.tokeniser, config.decoder) if part.weights]
    alone = rank_and_ranks()[1] == 1
    launch = launcher()
    if alone or constants.HF_HUB_OFFLINE or all(map(folder_of, named)) or launch is None:
        yield
        return
    key = f"{launch} {hashlib.blake2b(repr(config).encode(), digest_size=8).hexdigest()}"
    reached = once(Path(constants.HF_HOME) / f"vtok-{socket.gethostname()}.lock", key, lambda: fetch(config))
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, reached
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def launcher() -> str | None:
    """Identifies the process that started this one. ``None`` without a parent, as in a container's first process."""
    try:
        return f"{os.getppid()} {psutil.Process(os.getppid()).create_time()}"
    except psutil.Error:
        return None


def once(path: Path, key: str, work: Callable[[], None]) -> bool:
    """Does the work in the first process that calls this with the key. Other processes wait until it is done.

    If the work fails, the next process tries.

    Args:
        path: File of this machine, which stores the key of the last work done.
        key: Identifies the work.
        work: Does it.

    Returns:
        Whether the work is done. It is not if the file cannot be written or locked.
    """
    try:
        file = path.open("a+")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # held until the file is closed
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False
        file.seek(0)
        if file.read() != key:
            work()
            file.truncate(0)
            file.write(key)
    return True


def fetch(config: ModelConfig) -> None:
    """Puts every file of a framework into the hub's cache, without reading weights.

    Raises:
        ConfigError: The hub lacks a file, or a file does not fit the framework.
    """
    framework = build_framework(config, place=lambda parameter, read, fp32: parameter)
    for part in frozen_weights(config).values():  # includes all experts of a decoder
        part.all_tensors(shapes_of(framework))
