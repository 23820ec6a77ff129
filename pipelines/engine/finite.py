"""Drops the update of a step with a non-finite loss or gradient, on all ranks. Too many in a row stop the run.

If the loss of one rank is not finite, the loss of all ranks becomes NaN before backward. Backward still runs, so the
collectives, ZeRO-3's order of modules and the count of micro-steps stay those of any other step. The global gradient
norm is then not finite. The same holds if only a gradient overflows. At the end of the accumulation DeepSpeed discards
such gradients and changes neither weights nor moments (``was_step_applied`` returns false).
"""

import math

import torch
import torch.distributed as dist

from pipelines.engine import distributed
from vtok.config import ConfigError


def finite_on_all_ranks(loss: torch.Tensor) -> torch.Tensor:
    """Returns the loss, bit by bit unchanged; or NaN on every rank if the loss of any rank is not finite."""
    finite = distributed.reduce_over_ranks(loss.detach().isfinite().float(), dist.ReduceOp.MIN)
    return loss * torch.where(finite > 0, 1.0, math.nan)


class DroppedSteps:
    """Counts consecutive steps whose update was dropped. A resumed run starts at zero.

    Args:
        most: Number of consecutive dropped steps that stops the run.
    """

    def __init__(self, most: int):
        self.most = most
        self.in_a_row = 0

    def check(self, keys: list[str]) -> None:
        """Counts a step.

        Args:
            keys: Keys of the step's samples if its update was dropped, else empty.

        Raises:
            ConfigError: ``most`` consecutive updates were dropped. The message names the samples of this step.
        """
        self.in_a_row = self.in_a_row + 1 if keys else 0
        if self.in_a_row >= self.most:
            raise ConfigError(
                f"the loss or its gradient was not finite in {self.in_a_row} steps in a row (train.max_nonfinite_steps)"
                f": lower train.lr, or look at the samples of the last batch: {', '.join(keys)}"
            )
