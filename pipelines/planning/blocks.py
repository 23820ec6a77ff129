"""Computes the cost of one layer from stacks of two depths. The GPU kit compares measurements with it."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from pipelines.metering.meter import BACKWARD, Meter, Usage
from vtok.phases import phase

PHASE = "stack"


class Block(NamedTuple):
    """A layer's share of a forward and a backward pass.

    Attributes:
        forward, backward: Its work. The backward includes what checkpointing recomputes, and counts it apart too.
        saved: Bytes that it adds to the tensors kept between the passes.
        peak: Bytes that it adds to the peak of live tensors.
    """

    forward: Usage
    backward: Usage
    saved: int
    peak: int


def block_figures(fewer: Callable[[], Tensor], more: Callable[[], Tensor]) -> Block:
    """Computes the cost of one layer.

    Args:
        fewer, more: Forward passes on the meta device that return a loss. ``more`` has one layer more. ``fewer`` needs
            at least two: the first layer's input may have no gradient, and then it keeps less than the others.
    """
    before, after = stack_figures(fewer), stack_figures(more)
    return Block(
        difference(after.forward, before.forward),
        difference(after.backward, before.backward),
        after.saved - before.saved,
        after.peak - before.peak,
    )


def stack_figures(run: Callable[[], Tensor]) -> Block:
    """Computes the cost of a whole stack."""
    with Meter() as meter:
        with phase(PHASE):
            loss = run()
        saved = meter.live
        loss.backward()
    forward, backward = meter.usage[PHASE], meter.usage[PHASE + BACKWARD]
    return Block(forward, backward, saved, max(forward.peak, backward.peak))


def difference(more: Usage, fewer: Usage) -> Usage:
    """Subtracts work by kind. Peaks do not add up over parts, so they are left out."""

    def less(a: Counter[str], b: Counter[str]) -> Counter[str]:
        return Counter({kind: a[kind] - b[kind] for kind in a})

    return Usage(less(more.work, fewer.work), less(more.repeated, fewer.repeated))
