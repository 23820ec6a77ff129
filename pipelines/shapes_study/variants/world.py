"""The clips of the study of variants, and the frozen features of their frames.

Clips are drawn, not stored: a clip is a function of (seed, number). They take turns through the categories; the last
one is a clip with a cut. The encoder runs once on all frames. Every arm pools these features its own way.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_tools.draws import Draws
from data_tools.items import Item
from data_tools.shapes import CATEGORIES, cut_item, draw_cut_scene, item_of, render, render_cut, scene_of
from data_tools.shapes.cuts import SIDES
from pipelines.shapes_study.variants.config import WorldConfig
from vtok.config import VTokConfig
from vtok.feature_extractor import FeatureExtractor, build_feature_extractor
from vtok.spatial_encoder import pool_grid

ENCODER = "shapes/clip"
GRIDS = "grids.safetensors"
CELLS = 4  # along a side of the stored features: the most that an arm uses
SPLIT = "train"  # of the scenes, both to train on and to ask about
TRAIN, ASKED = 30_000_000, 31_000_000  # keep the seeds of the clips apart from each other and from other stages'
BATCH = 16


class Clip(NamedTuple):
    """A clip: its question, and a function that renders its frames (T, size, size, 3) ``uint8``."""

    item: Item
    render: Callable[[], np.ndarray]


def train_clips(config: WorldConfig, seed: int) -> list[Clip]:
    """Returns the clips to train on."""
    return list(islice(clips(config, seed + TRAIN), config.train))


def asked_clips(config: WorldConfig, seed: int) -> list[Clip]:
    """Returns the clips to ask about: the same number of each category, with and without a cut."""
    found: dict[str, list[Clip]] = {category: [] for category in (*config.categories, *SIDES)}
    for clip in clips(config, seed + ASKED):
        found[clip.item.category].append(clip)
        if all(len(own) >= config.asked for own in found.values()):
            break
    return [clip for own in found.values() for clip in own[: config.asked]]


def clips(config: WorldConfig, seed: int) -> Iterator[Clip]:
    """Yields clips without end."""
    for number in count():
        draws = Draws(seed, number)
        turn, place = divmod(number, len(config.categories) + 1)
        if place == len(config.categories):
            cut = draw_cut_scene(draws, SPLIT)
            yield Clip(cut_item(cut, draws, str(number)), partial(render_cut, cut, config.frames, config.size))
        else:
            labels = tuple(CATEGORIES[config.categories[place]].answers)
            scene = scene_of(config.categories[place], labels[turn % len(labels)], draws, SPLIT)
            yield Clip(item_of(scene, draws, str(number)), partial(render, scene, config.frames, config.size))


@torch.no_grad()
def encode(folder: Path, clips: list[Clip]) -> dict[str, Any]:
    """Writes the features of clips to ``folder/GRIDS``, (clips, T, CELLS, CELLS, d_v) fp16. Returns no figures."""
    encoder = build_feature_extractor(VTokConfig(weights=ENCODER)).eval()
    save_file({"grids": grids_of(encoder, clips)}, folder / GRIDS)
    return {}


def stored_grids(folder: Path) -> Tensor:
    """Reads what :func:`encode` wrote."""
    return load_file(folder / GRIDS)["grids"]


def grids_of(encoder: FeatureExtractor, split: list[Clip]) -> Tensor:
    """Renders and encodes clips to features (clips, T, CELLS, CELLS, d_v), fp16."""
    grids = []
    for first in range(0, len(split), BATCH):
        frames = torch.from_numpy(np.stack([clip.render() for clip in split[first : first + BATCH]]))
        features = encoder(frames.permute(0, 1, 4, 2, 3).flatten(0, 1))
        grids.append(pool_grid(features, CELLS).half().view(*frames.shape[:2], CELLS, CELLS, -1))
    return torch.cat(grids)
