"""Host memory for copies of checkpoints, allocated before the first step.

torch's pinned memory comes in blocks whose sizes are powers of two: 9 GB would take 17. Here all buffers of a rank lie
in one mapping of the needed size, which CUDA pins in place.
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
    """Returns the bytes of host memory for a rank's buffers, with rounding.

    Args:
        sizes: Elements of each fp32 buffer that a save copies: the rank's masters, both AdamW moments, its EMA.
    """
    return sum(map(whole_pages, sizes))


def whole_pages(size: int) -> int:
    """Returns the bytes of the pages that hold ``size`` fp32 elements."""
    return -(-size * ELEMENT // mmap.PAGESIZE) * mmap.PAGESIZE


def take(sizes: list[int], pin: bool) -> list[Tensor]:
    """Allocates fp32 buffers on the CPU. Every page of them is in memory when this returns.

    Forked loader processes do not get the mapping. If they shared its pages, a page that the parent writes to would be
    copied, and CUDA would have pinned the other copy.

    Args:
        sizes: Elements of each buffer.
        pin: Whether CUDA pins them, for copies from a GPU.

    Raises:
        ConfigError: There is not enough memory, or CUDA cannot pin it.
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
    """Pins a mapping for as long as it exists; raises ConfigError if CUDA cannot."""
    cudart = torch.cuda.cudart()
    if code := int(cudart.cudaHostRegister(address, size, 0)):
        raise ConfigError(
            f"cannot pin {size / 1e9:.1f} GB of host memory for checkpoints (CUDA error {code}): free host memory, or "
            "use more machines"
        )
    weakref.finalize(memory, cudart.cudaHostUnregister, address).atexit = False
