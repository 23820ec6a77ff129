"""Batch arithmetic. The user chooses the global batch; the number of ranks decides how it is divided."""

import hashlib
import math
from typing import NamedTuple, TypeVar

from vtok.config import ConfigError

T = TypeVar("T")


class BatchPlan(NamedTuple):
    """``global_batch_size = ranks * micro_batch_size * accumulation``."""

    global_batch_size: int
    ranks: int
    micro_batch_size: int
    accumulation: int


def smallest_valid_batch(global_batch_size: int, ranks: int) -> int:
    """Returns the smallest global batch, at least ``global_batch_size``, that is divisible by the ranks."""
    return -(-global_batch_size // ranks) * ranks


def plan_batch(global_batch_size: int, largest_micro_batch: int, ranks: int, even: bool = False) -> BatchPlan:
    """Plans with the largest micro-batch, at most ``largest_micro_batch``, that divides a rank's share evenly.

    Args:
        global_batch_size: Samples per optimiser step.
        largest_micro_batch: Samples that a rank processes at once, at most.
        ranks: Number of ranks.
        even: Whether the micro-batch must also divide the largest one, which has one bucket (``data.buckets``).

    Raises:
        ConfigError: The global batch is not divisible by the ranks.
    """
    if global_batch_size % ranks:
        smaller = max(d for d in range(1, ranks + 1) if global_batch_size % d == 0)
        above = smallest_valid_batch(global_batch_size, ranks)
        raise ConfigError(
            f"train.global_batch_size {global_batch_size} cannot be divided among {ranks} ranks: "
            f"use {smaller} ranks or a global batch of {above}"
        )
    share = global_batch_size // ranks
    divided = math.gcd(share, largest_micro_batch) if even else share
    micro = max(m for m in range(1, min(share, largest_micro_batch) + 1) if divided % m == 0)
    return BatchPlan(global_batch_size, ranks, micro, share // micro)


def batch_digest(keys: list[str]) -> str:
    """Hashes the keys of a global batch's samples, in global order."""
    return hashlib.blake2b("\n".join(keys).encode(), digest_size=8).hexdigest()


def in_global_order(by_rank: list[list[list[T]]]) -> list[T]:
    """Puts the items of each rank's micro-batches into global order: by accumulation step, then by rank."""
    return [item for step in zip(*by_rank) for micro_batch in step for item in micro_batch]
