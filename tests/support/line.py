"""A small training with the shapes models' loop, in a module that a spawned process can import."""

import torch
import torch.nn.functional as F
from torch import nn

from pipelines.shapes_models import ranks


def line(fitting, folder, stop=None):
    """Trains a small network; its training is stopped before the step ``stop``."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
    folder.mkdir(exist_ok=True)
    steps = iter(range(fitting.steps + 1))

    def loss(draws, count):
        if next(steps) == stop:
            raise KeyboardInterrupt
        x = torch.randn(count, 4, generator=draws)
        return F.mse_loss(model(x), x.sum(1, keepdim=True))

    ranks.train(model, loss, lambda name, parameter: parameter.ndim == 2, fitting, folder)
