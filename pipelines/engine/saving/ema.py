"""Exponential moving average of the trained weights, in fp32. Each rank averages its own slices of the masters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipelines.engine import distributed
from pipelines.engine.internals import masters, model_weights, partitions, use_weights
from pipelines.engine.setup import Engine


class Ema:
    """``ema += (1 - decay) * (weights - ema)`` at each update, starting from the present weights.

    Args:
        engine: The engine whose trained weights are averaged.
        decay: The decay, below 1.
        warmup: Whether the decay starts low: ``min(decay, (1 + n) / (10 + n))`` at update n. So the start of a short
            run does not dominate its average.
    """

    def __init__(self, engine: Engine, decay: float, warmup: bool = False):
        self.engine, self.decay, self.warmup = engine, decay, warmup
        self.buffers = [flat.detach().clone() for flat in masters(engine)]
        self.partitions = partitions(engine)

    @torch.no_grad()
    def update(self, update: int) -> None:
        """Updates the average after update number ``update``, counted from 1."""
        decay = decay_at(update, self.decay, self.warmup)
        torch._foreach_lerp_(self.buffers, [flat.detach() for flat in masters(self.engine)], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Lets the model compute with the average. Afterwards it has exactly its own weights again.

        All ranks enter and leave together.
        """
        live = [weights.detach().clone() for weights in model_weights(self.engine)]
        use_weights(self.engine, self.buffers)
        yield
        use_weights(self.engine, live)  # not after an error: the other ranks would not be there

    @torch.no_grad()
    def distance(self) -> float:
        """Computes ``|ema - weights| / |weights|`` over all trained parameters and ranks."""
        flats = masters(self.engine)
        squares = torch.zeros(2, dtype=torch.float64, device=self.engine.device)
        for own in self.partitions:
            weights = own.of(flats)
            both = torch.stack([(own.of(self.buffers) - weights).square().sum(), weights.square().sum()])
            squares += both.to(squares)
        distributed.reduce_over_ranks(squares)
        return float((squares[0] / squares[1].clamp_min(torch.finfo(torch.float64).tiny)).sqrt())


def decay_at(update: int, decay: float, warmup: bool) -> float:
    """Returns the decay of update number ``update``, counted from 1."""
    return min(decay, (1 + update) / (10 + update)) if warmup else decay
