"""Torch's memory on the GPU: segments that grow, so that freed pieces of unlike sizes join and can be used again.

ZeRO-3 gathers and frees weights of every size, and batches differ in length. Without growing segments torch keeps each
piece as it was cut, and reserves far more than it uses.

NCCL works with such segments; only its registration of torch's own buffers does not, and torch leaves that out by
itself. They are off by default in torch 2.6 to 2.13.
"""

import os

import torch

ENVIRONMENT = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


def let_segments_grow() -> None:
    """Switch growing segments on, unless the user has set torch's allocator; call it before memory is taken.

    Not by the environment: torch 2.9 does not read the variable's new name, and warns of the old one.
    """
    if any(name in os.environ for name in ENVIRONMENT) or not torch.cuda.is_available():
        return
    change = getattr(torch._C, "_accelerator_setAllocatorSettings", None) or torch.cuda.memory._set_allocator_settings
    change("expandable_segments:True")
