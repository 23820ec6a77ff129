"""Turns clips into micro-batches of a codec's input."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from data_tools.dataset import Sample
from pipelines.engine.loading.loader import Loaded
from pipelines.vidtok_training.data import cropped


class Inputs(NamedTuple):
    """A micro-batch.

    Attributes:
        values: The model's input, (B, ...).
        keys: Keys of the samples.
    """

    values: Tensor
    keys: list[str]

    def to(self, device: torch.device) -> "Inputs":
        """Returns the micro-batch with its input on a device."""
        return self._replace(values=self.values.to(device, non_blocking=True))


class Read(NamedTuple):
    """A sample, and the model's input of it."""

    sample: Sample
    value: Tensor


class Reading:
    """Reads a sample as the model's input.

    Args:
        read: Turns frames (T, 3, H, W) ``uint8`` into the input.
        crop: Side in pixels of the square to cut out of each sample, or ``None`` for whole frames.
    """

    def __init__(self, read: Callable[[Tensor], Tensor], crop: int | None):
        self.read, self.crop = read, crop

    def __call__(self, sample: Sample) -> Read:
        assert sample.frames is not None  # videos without stored features
        return Read(sample, self.read(cropped(sample, self.crop) if self.crop else sample.frames))


def collate(items: list[Read]) -> Loaded:
    """Stacks samples into a micro-batch."""
    samples = [item.sample for item in items]
    inputs = Inputs(torch.stack([item.value for item in items]), [sample.key for sample in samples])
    return Loaded(inputs, [(s.position, key, reason) for s in samples for key, reason in s.replaced])
