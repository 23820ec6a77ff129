"""The memory of this rank: measures it in GB (10^9 bytes), and gives it back."""

import gc

import psutil
import torch


def used_gb() -> dict[str, float]:
    """Returns the memory in use, and resets the GPU's peaks.

    Returns:
        ``host_gb``: Resident memory of the process, without its loader workers. On a GPU also ``gpu_allocated_gb`` and
        ``gpu_reserved_gb``: The most that tensors and torch's allocator held since the last call.
    """
    used = {"host_gb": psutil.Process().memory_info().rss}
    if torch.cuda.is_available():
        used |= {
            "gpu_allocated_gb": torch.cuda.max_memory_allocated(),
            "gpu_reserved_gb": torch.cuda.max_memory_reserved(),
        }
        torch.cuda.reset_peak_memory_stats()
    return {name: size / 1e9 for name, size in used.items()}


def give_back() -> None:
    """Gives the memory of models that are no longer used to the next one."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
