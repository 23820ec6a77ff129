"""torch's memory on the GPU: expandable segments, in which freed pieces of different sizes merge and can be used again.

ZeRO-3 gathers and frees weights of all sizes, and batches differ in length. Without expandable segments torch never
merges pieces, and reserves far more than it uses.

NCCL works with such segments, except for its registration of torch's buffers, which torch then skips. They are off by
default in torch 2.6 to 2.13.
"""

import os

import torch

ENVIRONMENT = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


def let_segments_grow() -> None:
    """Turns on expandable segments, unless the user has configured torch's allocator. Call it before any allocation.

    It does not use the environment: torch 2.9 does not read the variable's new name and warns about the old one.
    """
    if any(name in os.environ for name in ENVIRONMENT) or not torch.cuda.is_available():
        return
    change = getattr(torch._C, "_accelerator_setAllocatorSettings", None) or torch.cuda.memory._set_allocator_settings
    change("expandable_segments:True")
