"""Batch arithmetic. The user chooses the global batch; the number of ranks decides how it is divided."""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from vtok.config import ConfigError, require

T = TypeVar("T")


class BatchPlan(NamedTuple):
    """``global_batch_size = data_ranks * micro_batch_size * accumulation``.

    Attributes:
        ranks: All ranks.
        sequence_parallel: Consecutive ranks that share their samples. Each such group counts as one data rank.
    """

    global_batch_size: int
    ranks: int
    micro_batch_size: int
    accumulation: int
    sequence_parallel: int = 1

    @property
    def data_ranks(self) -> int:
        return self.ranks // self.sequence_parallel

    def one_of_each_group(self, of_ranks: Sequence[T]) -> Sequence[T]:
        """Keeps the items of one rank of each group, since ranks of a group have the same samples."""
        return of_ranks[:: self.sequence_parallel]


def data_ranks(ranks: int, sequence_parallel: int) -> int:
    """Returns the number of groups of ranks that share their samples.

    Raises:
        ConfigError: The ranks cannot be divided into such groups.
    """
    require(
        ranks % sequence_parallel == 0,
        f"train.sequence_parallel {sequence_parallel} does not divide the number of ranks, {ranks}: start a "
        "multiple of it, or set it to a divisor",
    )
    return ranks // sequence_parallel


def smallest_valid_batch(global_batch_size: int, ranks: int) -> int:
    """Returns the smallest global batch, at least ``global_batch_size``, that is divisible by the ranks."""
    return -(-global_batch_size // ranks) * ranks


def plan_batch(
    global_batch_size: int, largest_micro_batch: int, ranks: int, even: bool = False, sequence_parallel: int = 1
) -> BatchPlan:
    """Plans with the largest micro-batch, at most ``largest_micro_batch``, that divides a rank's share evenly.

    Args:
        global_batch_size: Samples per optimiser step.
        largest_micro_batch: Samples that a rank processes at once, at most.
        ranks: Number of ranks.
        even: Whether the micro-batch must also divide the largest one, which has one bucket (``data.buckets``).
        sequence_parallel: Consecutive ranks that share their samples.

    Raises:
        ConfigError: The global batch is not divisible by the data ranks, or the ranks not by ``sequence_parallel``.
    """
    groups = data_ranks(ranks, sequence_parallel)
    if global_batch_size % groups:
        smaller = max(d for d in range(1, groups + 1) if global_batch_size % d == 0)
        above = smallest_valid_batch(global_batch_size, groups)
        among = f"{ranks} ranks" if sequence_parallel == 1 else f"{groups} groups of {sequence_parallel} ranks"
        raise ConfigError(
            f"train.global_batch_size {global_batch_size} cannot be divided among {among}: "
            f"use {smaller * sequence_parallel} ranks or a global batch of {above}"
        )
    share = global_batch_size // groups
    divided = math.gcd(share, largest_micro_batch) if even else share
    micro = max(m for m in range(1, min(share, largest_micro_batch) + 1) if divided % m == 0)
    return BatchPlan(global_batch_size, ranks, micro, share // micro, sequence_parallel)


def batch_digest(keys: list[str]) -> str:
    """Hashes the keys of a global batch's samples, in global order."""
    return hashlib.blake2b("\n".join(keys).encode(), digest_size=8).hexdigest()


def in_global_order(by_rank: Sequence[list[list[T]]]) -> list[T]:
    """Puts the items of each data rank's micro-batches into global order: by accumulation step, then by rank."""
    return [item for step in zip(*by_rank) for micro_batch in step for item in micro_batch]
