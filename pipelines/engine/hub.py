"""Weights from the hub: one process of a machine asks for them, the others read what it has put into the cache.

Every file of a model costs a request, also where the cache has it. 64 ranks would make thousands of them at once.
Inference knows no process group, so that the processes find one another by the launcher that started them all.
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

from pipelines.cli.launcher import rank_and_ranks
from vtok.assembly.build import build_framework, frozen_weights
from vtok.config import ModelConfig
from vtok.weights import shapes_of
from vtok.weights.shipped import folder_of


@contextmanager
def asked_once(config: ModelConfig) -> Iterator[None]:
    """Within, the hub is not asked: all that a framework is built of is in its cache.

    Nothing changes for a process that is alone, or where all weights are in folders, or the cache cannot be written.

    Raises:
        ConfigError: something is not on the hub.
    """
    named = [part.weights for part in (config.mllm, config.tokeniser, config.decoder) if part.weights]
    alone = rank_and_ranks()[1] == 1
    if alone or constants.HF_HUB_OFFLINE or all(map(folder_of, named)):
        yield
        return
    launch = f"{os.getppid()} {psutil.Process(os.getppid()).create_time()}"
    key = f"{launch} {hashlib.blake2b(repr(config).encode(), digest_size=8).hexdigest()}"
    reached = once(Path(constants.HF_HOME) / f"vtok-{socket.gethostname()}.lock", key, lambda: fetch(config))
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, reached
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def once(path: Path, key: str, work: Callable[[], None]) -> bool:
    """Do the work in the first process that comes with this key; the others wait until it is done.

    Where it fails, the next one tries.

    Args:
        path: a file of this machine's, which keeps the key of the work that was done last.

    Returns:
        Whether it is done; it is not where the file cannot be written.
    """
    try:
        file = path.open("a+")
    except OSError:
        return False
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        file.seek(0)
        if file.read() != key:
            work()
            file.truncate(0)
            file.write(key)
    return True


def fetch(config: ModelConfig) -> None:
    """Bring every file that a framework is built of into the hub's cache; no weights are read.

    Raises:
        ConfigError: one of them is not on the hub, or does not fit.
    """
    framework = build_framework(config, place=lambda parameter, read: parameter)
    for part in frozen_weights(config).values():  # all of a decoder's experts
        part.tensors(shapes_of(framework))
