"""A small training with the shapes models' loop, in a module that a spawned process can import."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from pipelines.shapes_models import ranks


def line(fitting, folder, stop=None, parts=1):
    """Trains a small network.

    Args:
        fitting: The settings.
        folder: Folder of the training.
        stop: The training is stopped before this step.
        parts: Processes whose batches this one process computes, one after the other.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
    folder.mkdir(exist_ok=True)
    steps = itertools.count()

    def error(draws, count):
        x = torch.randn(count, 4, generator=draws)
        return F.mse_loss(model(x), x.sum(1, keepdim=True))

    def loss(draws, count):
        step = next(steps)
        if step == stop:
            raise KeyboardInterrupt
        if parts == 1:
            return error(draws, count)
        own = [torch.Generator().manual_seed(step * parts + part) for part in range(parts)]
        return sum(error(each, count // parts) for each in own) / parts

    ranks.train(model, loss, lambda name, parameter: parameter.ndim == 2, fitting, folder)
