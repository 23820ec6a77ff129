"""Host memory that checkpoints are copied to: taken before the first step, and not more of it than is needed.

Torch's own pinned memory comes in blocks whose sizes are powers of two, so that 9 GB would take 17. Here all buffers of
a rank lie in one mapping, and CUDA pins that mapping where it is.
"""

import mmap
import sys
import weakref
from collections.abc import Iterable

import torch
from torch import Tensor

from vtok.config import ConfigError

ELEMENT = torch.float32.itemsize


def pinned_bytes(sizes: Iterable[int]) -> int:
    """Bytes of host memory that a rank's buffers take, rounding included.

    Args:
        sizes: elements of each fp32 buffer that a save copies: a rank's masters, both of AdamW's moments, its EMA.
    """
    return sum(map(whole_pages, sizes))


def whole_pages(size: int) -> int:
    """Bytes of the pages that ``size`` fp32 elements fill."""
    return -(-size * ELEMENT // mmap.PAGESIZE) * mmap.PAGESIZE


def take(sizes: list[int], pin: bool) -> list[Tensor]:
    """Buffers of so many elements each, fp32, on the CPU; every page of them is in memory when this returns.

    Loader processes, which are forked, do not get the mapping: they would else share its pages, and a page that the
    parent writes to would be copied and no longer be the one that CUDA has pinned.

    Args:
        pin: let CUDA pin them, for copies from a GPU.

    Raises:
        ConfigError: the system has not so much memory, or CUDA cannot pin it.
    """
    wanted = pinned_bytes(sizes)
    try:
        memory = mmap.mmap(-1, wanted, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise ConfigError(f"cannot take {wanted / 1e9:.1f} GB of host memory for checkpoints: {error}") from error
    if sys.platform == "linux":
        memory.madvise(mmap.MADV_DONTFORK)
    pages = torch.frombuffer(memory, dtype=torch.float32)
    pages.zero_()
    if pin:
        pin_mapping(memory, pages.data_ptr(), wanted)
    starts = [pinned_bytes(sizes[:number]) // ELEMENT for number in range(len(sizes))]
    return [pages[start : start + size] for start, size in zip(starts, sizes)]


def pin_mapping(memory: mmap.mmap, address: int, size: int) -> None:
    """Pin a mapping until it goes; raises ConfigError if CUDA cannot."""
    cudart = torch.cuda.cudart()
    if code := int(cudart.cudaHostRegister(address, size, 0)):
        raise ConfigError(
            f"cannot pin {size / 1e9:.1f} GB of host memory for checkpoints (CUDA error {code}): free host memory, or "
            "use more machines"
        )
    weakref.finalize(memory, cudart.cudaHostUnregister, address).atexit = False
