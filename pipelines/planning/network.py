"""Divides what a GPU receives between its node and the network, and computes how long a step waits for it.

Speeds are assumptions (:class:`pipelines.planning.hardware.Hardware`). Latency does not count. Assumed overlap:

- Gathers of the forward are prefetched while the forward computes; those of the backward, and the reduction of
  gradients, while the backward computes. A step waits for what takes longer than that computation.
- Nothing hides the exchange of ranks that share a sample, since attention needs its result at once. Nor does anything
  hide ZeRO-2's gather after the update.
- The links of a node and the network work at the same time.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pipelines.metering.meter import BACKWARD
from pipelines.planning.hardware import Hardware
from pipelines.planning.time import Seconds

FORWARD_PASS, BACKWARD_PASS, NOTHING = "forward", "backward", "nothing"


class Received(NamedTuple):
    """Bytes that one GPU receives in an optimiser step for one purpose.

    Attributes:
        inside: Those from GPUs of its node.
        between: Those from other nodes.
        behind: The computation that hides them: of ``FORWARD_PASS``, ``BACKWARD_PASS``, ``NOTHING``.
    """

    inside: int
    between: int
    behind: str

    @property
    def total(self) -> int:
        return self.inside + self.between


def fewest_together(ranks: int, group: int, per_node: int) -> int:
    """Returns how many ranks of a group lie in one node, where they are fewest.

    Args:
        ranks: All ranks.
        group: Consecutive ranks that form a group.
        per_node: Consecutive ranks of a node.
    """
    together: dict[tuple[int, int], int] = {}
    for rank in range(ranks):
        place = rank // group, rank // per_node
        together[place] = together.get(place, 0) + 1
    return min(together.values())


def ring(received: float, ranks: int, group: int, per_node: int, behind: str) -> Received:
    """Divides the bytes of a gather, or of a reduction, over a ring of ranks.

    The ring enters each node once, and all ranks that it has there take their part of that through their own adapters,
    as NCCL's rings do. So one in ``fewest_together`` bytes comes from another node.

    Args:
        received: Bytes that a rank receives.
        ranks, group, per_node: As in :func:`fewest_together`.
        behind: As in :class:`Received`.
    """
    here = fewest_together(ranks, group, per_node)
    between = round(received / here) if here < group else 0
    return Received(round(received) - between, between, behind)


def all_to_all(received: float, ranks: int, group: int, per_node: int) -> Received:
    """Divides the bytes of an exchange in which a rank receives as much from each other rank of its group.

    Args:
        received: Bytes that a rank receives.
        ranks, group, per_node: As in :func:`fewest_together`.
    """
    elsewhere = group - fewest_together(ranks, group, per_node)
    between = round(received * elsewhere / max(1, group - 1))
    return Received(round(received) - between, between, NOTHING)


def from_neighbour(received: float, ranks: int, group: int, per_node: int) -> Received:
    """Divides the bytes of an exchange in which a rank receives from one other rank of its group.

    A step waits for the slowest rank. If the group lies in several nodes, that is one whose neighbour is in another.

    Args:
        received: Bytes that a rank receives.
        ranks, group, per_node: As in :func:`fewest_together`.
    """
    total = round(received)
    between = total if fewest_together(ranks, group, per_node) < group else 0
    return Received(total - between, between, NOTHING)


def transfer_seconds(received: Iterable[Received], hardware: Hardware) -> float:
    """Computes how long the links take for some traffic."""
    moved = list(received)
    inside, between = sum(r.inside for r in moved), sum(r.between for r in moved)
    return max(inside / hardware.nvlink, between / hardware.infiniband) / 1e9


def waiting_seconds(
    traffic: Mapping[str, Received], seconds: Mapping[str, Seconds], accumulation: int, hardware: Hardware
) -> float:
    """Computes how long an optimiser step waits for the network.

    Args:
        traffic: What a GPU receives in the step, by purpose.
        seconds: The computation of a micro-step, by phase.
        accumulation: Micro-steps of a step.
        hardware: The speeds of the links.
    """
    backward = accumulation * sum(time.total for phase, time in seconds.items() if phase.endswith(BACKWARD))
    forward = accumulation * sum(time.total for time in seconds.values()) - backward
    waited = 0.0
    for behind, hides in ((FORWARD_PASS, forward), (BACKWARD_PASS, backward), (NOTHING, 0.0)):
        taken = transfer_seconds((r for r in traffic.values() if r.behind == behind), hardware)
        waited += max(0.0, taken - hides)
    return waited
