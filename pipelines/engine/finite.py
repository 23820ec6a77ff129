"""Steps whose loss or gradient is not finite: no rank applies their update, and too many in a row stop the run.

A loss that is not finite on one rank becomes NaN on all of them before backward. Backward runs all the same, so that
the collectives, ZeRO-3's order of modules and the count of micro-steps are those of any other step. The norm of the
gradients, over all ranks, is then not finite, and neither is it where a gradient overflows by itself: at the end of the
accumulation DeepSpeed discards such gradients and touches neither weights nor moments (``was_step_applied`` is false).
"""

import math

import torch
import torch.distributed as dist

from pipelines.engine import distributed
from vtok.config import ConfigError


def finite_on_all_ranks(loss: torch.Tensor) -> torch.Tensor:
    """The loss, unchanged to the last bit; or NaN, on every rank, if it is not finite on one of them."""
    finite = distributed.reduce_over_ranks(loss.detach().isfinite().float(), dist.ReduceOp.MIN)
    return loss * torch.where(finite > 0, 1.0, math.nan)


class DroppedSteps:
    """Steps in a row whose update was dropped; a resumed run counts anew.

    Args:
        most: as many in a row stop the run.
    """

    def __init__(self, most: int):
        self.most = most
        self.in_a_row = 0

    def check(self, keys: list[str]) -> None:
        """Count a step.

        Args:
            keys: of its batch, if its update was dropped; else none.

        Raises:
            ConfigError: ``most`` in a row were; the line names the last one's samples.
        """
        self.in_a_row = self.in_a_row + 1 if keys else 0
        if self.in_a_row >= self.most:
            raise ConfigError(
                f"the loss or its gradient was not finite in {self.in_a_row} steps in a row (train.max_nonfinite_steps)"
                f": lower train.lr, or look at the samples of the last batch: {', '.join(keys)}"
            )
