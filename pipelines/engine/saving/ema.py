"""Exponential moving average of the trained weights: fp32, each rank its own slices, like the masters they follow."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipelines.engine import distributed
from pipelines.engine.internals import masters, model_weights, partitions, use_weights
from pipelines.engine.setup import Engine


class Ema:
    """``ema += (1 - decay) * (weights - ema)`` at each update, from the weights it is made with.

    Args:
        engine: whose trained weights are followed.
        decay: of the average, below 1.
        warmup: let the decay start low: ``min(decay, (1 + n) / (10 + n))`` at update n, so that the average of a short
            run is not one of its start.
    """

    def __init__(self, engine: Engine, decay: float, warmup: bool = False):
        self.engine, self.decay, self.warmup = engine, decay, warmup
        self.buffers = [flat.detach().clone() for flat in masters(engine)]
        self.partitions = partitions(engine)

    @torch.no_grad()
    def update(self, update: int) -> None:
        """Follow the weights after update number ``update``, from 1."""
        decay = decay_at(update, self.decay, self.warmup)
        torch._foreach_lerp_(self.buffers, [flat.detach() for flat in masters(self.engine)], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model computes with the average; afterwards with its own weights, to the last bit.

        All ranks enter and leave together.
        """
        live = [weights.detach().clone() for weights in model_weights(self.engine)]
        use_weights(self.engine, self.buffers)
        yield
        use_weights(self.engine, live)  # not after an error: the other ranks would not be there

    @torch.no_grad()
    def distance(self) -> float:
        """``|ema - weights| / |weights|`` over all trained parameters and ranks."""
        flats = masters(self.engine)
        squares = torch.zeros(2, dtype=torch.float64, device=self.engine.device)
        for own in self.partitions:
            weights = own.of(flats)
            both = torch.stack([(own.of(self.buffers) - weights).square().sum(), weights.square().sum()])
            squares += both.to(squares)
        distributed.reduce_over_ranks(squares)
        return float((squares[0] / squares[1].clamp_min(torch.finfo(torch.float64).tiny)).sqrt())


def decay_at(update: int, decay: float, warmup: bool) -> float:
    """The decay of update number ``update``, from 1."""
    return min(decay, (1 + update) / (10 + update)) if warmup else decay
