"""What a person runs: ``train.py``, ``understand.py``, ``generate.py``, ``plan.py``; ``engine/`` is what they share."""

import os

import torch

if not torch.cuda.is_available():
    # Said before DeepSpeed is imported, or it prints on stdout that it found no accelerator.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
