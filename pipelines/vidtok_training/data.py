"""Turns shards or video files into micro-batches of clips."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from data_tools.dataset import ClipDataset, Sample
from data_tools.shards import ShardReader
from data_tools.streaming.memory import stacked
from data_tools.video.files import VideoFiles
from data_tools.video.views import View
from pipelines.engine.loading.loader import Loaded
from pipelines.engine.outputs import open_dataset
from pipelines.vidtok_training.config import HeldOutVideosConfig, VideoDataConfig


class VideoRun(Protocol):
    """What this file needs of a run's configuration."""

    seed: int
    data: VideoDataConfig

    @property
    def validation(self) -> HeldOutVideosConfig: ...


class Clips(NamedTuple):
    """A micro-batch.

    Attributes:
        frames: The clips, (B, T, 3, H, W) ``uint8``.
        keys: Keys of the samples.
        seed: Seed of the latents' noise; it is drawn from the first sample.
    """

    frames: Tensor
    keys: list[str]
    seed: int

    def to(self, device: torch.device) -> "Clips":
        """Returns the micro-batch with its frames on a device."""
        return self._replace(frames=self.frames.to(device, non_blocking=True))


def collate(items: list[Sample], crop: int | None = None) -> Loaded:
    """Stacks samples into a micro-batch.

    Args:
        items: The samples.
        crop: Side in pixels of the square to cut out of each sample, or ``None`` for whole frames.
    """
    frames = [cropped(s, crop) if crop else s.frames for s in items]
    clips = Clips(stacked(frames), [s.key for s in items], items[0].draws.seed("latents"))
    return Loaded(clips, [(s.position, key, reason) for s in items for key, reason in s.replaced])


def cropped(sample: Sample, side: int) -> Tensor:
    """Cuts a square out of a sample's frames, (T, 3, side, side). The sample's own draws choose the place."""
    height, width = sample.frames.shape[2:]
    top = sample.draws.integer("crop-top", height - side + 1)
    left = sample.draws.integer("crop-left", width - side + 1)
    return sample.frames[:, :, top : top + side, left : left + side]


def open_videos(config: VideoRun) -> ShardReader | VideoFiles:
    """Opens the videos of a run.

    Raises:
        DataError: There are none.
    """
    return opened(config, config.data)


def open_held_out(config: VideoRun) -> ShardReader | VideoFiles | None:
    """Opens the held-out videos of a run; ``None`` if it has no validation.

    Raises:
        DataError: There are none.
    """
    return opened(config, config.validation) if config.validation.wanted else None


def opened(config: VideoRun, named: VideoDataConfig | HeldOutVideosConfig) -> ShardReader | VideoFiles:
    """Opens the videos that a section names."""
    if named.shards:
        return open_dataset(config, named.shards)
    assert named.root is not None  # the configuration has checked this
    return VideoFiles(named.root, named.meta_path)


def build_dataset(
    config: VideoRun, reader: ShardReader | VideoFiles, transform: Callable[[Sample], Any] | None = None
) -> ClipDataset:
    """Returns a dataset of clips, each at a random place of its video, and each as ``transform`` gives it."""
    data = config.data
    return ClipDataset(
        reader,
        seed=config.seed,
        seconds=(data.frames - 1) / data.fps,
        tokeniser_view=View(data.fps, data.frames, data.height, data.width),
        fit=data.fit,
        decoder=data.decoder,
        padded=True,
        transform=transform,
    )
