"""One more layer of a stack: what it costs, by the difference of two depths; a GPU's own figures can be held to it."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from pipelines.metering.meter import BACKWARD, Meter, Usage
from vtok.phases import phase

PHASE = "stack"


class Block(NamedTuple):
    """A layer's share of a forward and backward.

    Attributes:
        forward, backward: its work; what checkpointing repeats is part of the backward, and told apart there.
        saved: bytes that it adds to what is kept between them.
        peak: bytes that it adds to the most that is alive.
    """

    forward: Usage
    backward: Usage
    saved: int
    peak: int


def block_figures(fewer: Callable[[], Tensor], more: Callable[[], Tensor]) -> Block:
    """Of one layer.

    Args:
        fewer, more: forwards on the meta device that return a loss; ``more`` has one layer more. ``fewer`` should have
            two at least: the first layer's input may carry no gradient, and then it keeps less than the others.
    """
    before, after = stack_figures(fewer), stack_figures(more)
    return Block(
        difference(after.forward, before.forward),
        difference(after.backward, before.backward),
        after.saved - before.saved,
        after.peak - before.peak,
    )


def stack_figures(run: Callable[[], Tensor]) -> Block:
    """The same figures of a whole stack."""
    with Meter() as meter:
        with phase(PHASE):
            loss = run()
        saved = meter.live
        loss.backward()
    forward, backward = meter.usage[PHASE], meter.usage[PHASE + BACKWARD]
    return Block(forward, backward, saved, max(forward.peak, backward.peak))


def difference(more: Usage, fewer: Usage) -> Usage:
    """Work by kind; peaks are no sum of parts and are left out."""

    def less(a: Counter[str], b: Counter[str]) -> Counter[str]:
        return Counter({kind: a[kind] - b[kind] for kind in a})

    return Usage(less(more.work, fewer.work), less(more.repeated, fewer.repeated))
