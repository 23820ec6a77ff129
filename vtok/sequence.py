"""Sequence parallelism: a group of n ranks shares each sample, and each rank holds some of the rows of its sequence.

Rows (tokens) are cut into n consecutive parts, which differ by one row at most. What works row by row (projections,
norms, feed-forward layers) works on a rank's own rows. Attention needs all rows, but its heads do not need each other:

    own rows, all heads --to_heads()--> all rows, own heads --attention, to_rows()--> own rows, all heads

(Jacobs et al., 2023, DeepSpeed-Ulysses, section 3). Both steps are one all-to-all exchange. Neither diffusers nor
DeepSpeed has one with a backward pass that takes parts of unlike length, and torch's own is private or deprecated. So
:class:`Exchange` is ours.

Gradients: the backward of an exchange is the opposite exchange. So backward on all ranks of the group computes the
gradient of the sum of their losses. Each rank computes the sample's whole loss from :meth:`SequenceGroup.whole`, so the
sum is n times the loss. An average of gradients over all ranks, such as ZeRO's, is then that over all samples, for
weights used on some rows and for weights used on all ranks alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class SequenceGroup:
    """The ranks that share a sample, as one of them sees them.

    Attributes:
        size: Their number, n.
        rank: Number of this rank among them.
        group: Their process group. ``None`` on the meta device, where nothing is sent.
    """

    size: int
    rank: int
    group: dist.ProcessGroup | None

    def lengths(self, total: int) -> list[int]:
        """Returns the number of rows of each rank. If ``total`` is not divisible, the first ranks have one more."""
        least, longer = divmod(total, self.size)
        return [least + (rank < longer) for rank in range(self.size)]

    def own(self, rows: Tensor, dim: int) -> Tensor:
        """Returns this rank's rows of a tensor that all ranks have."""
        lengths = self.lengths(rows.shape[dim])
        return rows.narrow(dim, sum(lengths[: self.rank]), lengths[self.rank])

    def whole(self, own: Tensor, total: int) -> Tensor:
        """Gathers the rows of all ranks: (B, own rows, d) to (B, ``total``, d).

        In backward a row gets the sum of the gradients that it has on all ranks.
        """
        count = own.shape[1]
        copies = own.transpose(0, 1).expand(self.size, -1, -1, -1).flatten(0, 1)
        return self._exchange(copies, [count] * self.size, self.lengths(total)).transpose(0, 1)

    def to_heads(self, own: Tensor, totals: Sequence[int]) -> Tensor:
        """Exchanges rows for heads: (..., own rows, heads, d) to (..., all rows, heads / n, d).

        Args:
            own: This rank's part of the first sequence, then of the next, and so on.
            totals: Length of each sequence. The result has them one after the other.
        """
        parts = [self.lengths(total) for total in totals]
        by_rank = [sum(of_rank) for of_rank in zip(*parts)]
        count, heads = own.shape[-3], own.shape[-2]
        sent = own.unflatten(-2, (self.size, heads // self.size)).movedim((-3, -4), (0, 1)).flatten(0, 1)
        received = self._exchange(sent, [count] * self.size, by_rank)
        pieces = iter(received.split([length for of_rank in zip(*parts) for length in of_rank]))
        ordered = zip(*[[next(pieces) for _ in parts] for _ in range(self.size)])
        return torch.cat([piece for sequence in ordered for piece in sequence]).movedim(0, -3)

    def to_rows(self, heads: Tensor, totals: Sequence[int]) -> Tensor:
        """Exchanges heads for rows: (..., all rows, heads / n, d) to (..., own rows, heads, d). Undoes `to_heads`."""
        parts = [self.lengths(total) for total in totals]
        by_rank = [sum(of_rank) for of_rank in zip(*parts)]
        count = by_rank[self.rank]
        pieces = iter(heads.movedim(-3, 0).split([length for sequence in parts for length in sequence]))
        ordered = zip(*[[next(pieces) for _ in range(self.size)] for _ in parts])
        sent = torch.cat([piece for of_rank in ordered for piece in of_rank])
        received = self._exchange(sent, by_rank, [count] * self.size)
        return received.unflatten(0, (self.size, count)).movedim((0, 1), (-3, -4)).flatten(-3, -2)

    def from_rank_before(self, own: Tensor) -> Tensor:
        """Gives the next rank a tensor and returns that of the rank before, in its shape. Without a gradient.

        The first rank comes after the last.
        """
        sent, received = (
            [int(rank == at % self.size) for rank in range(self.size)] for at in (self.rank + 1, self.rank - 1)
        )
        return exchange(own[None], sent, received, self.group)[0]

    def _exchange(self, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        exchanged: Tensor = Exchange.apply(rows, sent, received, self.group)
        return exchanged


class Exchange(torch.autograd.Function):
    """Sends each rank of a group some rows, and receives some from each: all-to-all over the first dimension."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup | None
    ) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return exchange(rows, sent, received, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return exchange(gradient, ctx.received, ctx.sent, ctx.group), None, None, None


def exchange(rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup | None) -> Tensor:
    """Exchanges rows (n, ...) without a gradient.

    Args:
        rows: Those for the first rank, then those for the next, and so on.
        sent: The number of rows for each rank.
        received: The number of rows from each rank.
        group: The ranks.
    """
    result = rows.new_empty(sum(received), *rows.shape[1:])
    if not rows.is_meta:
        dist.all_to_all_single(result, rows.contiguous(), received, sent, group=group)
    return result
