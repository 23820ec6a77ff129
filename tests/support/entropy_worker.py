"""One of two ranks: the entropy gap of its half of some latents, and its gradient."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from vtok.vidtok.codebook_entropy import entropy_gap


def gap_of_half(rank: int, folder: Path, z: Tensor, levels: tuple[int, ...]) -> None:
    """Writes ``folder/RANK.pt``."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'ranks'}", rank=rank, world_size=2)
    own = z.chunk(2)[rank].clone().requires_grad_()
    gap = entropy_gap(own, [(torch.arange(level) - level // 2) / (level // 2) for level in levels])
    gap.backward()
    torch.save((gap.detach(), own.grad), folder / f"{rank}.pt")
    dist.destroy_process_group()
