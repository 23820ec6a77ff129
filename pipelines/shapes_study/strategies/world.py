"""The clips of the study, and what the frozen parts make of them.

Clips are drawn, not stored: a clip is a function of (seed, split, number). There are three splits:

train     the clips to train on
new       new scenes of the training distribution, for the main tables
unseen    combinations of colour, shape and label that no training clip shows

Encoder, autoencoder and the decoder's text tower run once, for all arms. Every arm pools the features its own way.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_tools.draws import Draws
from data_tools.items import Item
from data_tools.shapes import CATEGORIES, Scene, draw_scene, item_of, render_at, scene_of
from pipelines.engine import distributed
from pipelines.shapes_study.strategies.config import WorldConfig
from pipelines.shapes_study.strategies.model import ENCODER, features_of, shipped_framework
from pipelines.shapes_study.strategies.stored import load_features
from vtok.config import DecoderConfig, VTokConfig
from vtok.feature_extractor import build_feature_extractor
from vtok.tokeniser import Tokeniser, VisualFeatures
from vtok.video_decoder import encode_video

TRAIN, NEW, UNSEEN = "train", "new", "unseen"
# Each split's combinations, and an offset that keeps its seeds apart from those of other splits and other stages.
SPLITS = {TRAIN: ("train", 40_000_000), NEW: ("train", 41_000_000), UNSEEN: ("test", 42_000_000)}
STORED = "clips.safetensors"
TOKENS = "tokens.safetensors"  # what the codec of an arm makes of clips
LAST_FRAME = 23 / 8  # seconds: the shipped models' clips are 24 frames at 8 per second; the scene ends with the last
BATCH = 16


class Clip(NamedTuple):
    """A clip: what it shows, and the question about it. The item's prompt is the short caption."""

    scene: Scene
    item: Item


def train_clips(config: WorldConfig, seed: int) -> list[Clip]:
    """Returns the clips to train on: all categories and all labels in turn."""
    split, offset = SPLITS[TRAIN]
    draws = [Draws(seed + offset, number) for number in range(config.train)]
    scenes = [draw_scene(own, split) for own in draws]
    return [Clip(scene, item_of(scene, own, str(own.position))) for scene, own in zip(scenes, draws)]


def asked_clips(split: str, per_category: int, seed: int) -> list[Clip]:
    """Returns the clips of a split to ask about, category after category; each cycles through its labels.

    The first clips of a category do not depend on how many follow.
    """
    shown, offset = SPLITS[split]
    clips = []
    for place, (category, about) in enumerate(CATEGORIES.items()):
        labels = tuple(about.answers)
        for number in range(per_category):
            draws = Draws(seed + offset, number * len(CATEGORIES) + place)
            scene = scene_of(category, labels[number % len(labels)], draws, shown)
            clips.append(Clip(scene, item_of(scene, draws, f"{category}-{number:03d}")))
    return clips


def first_of_each(clips: list[Clip], per_category: int, categories: tuple[str, ...]) -> list[int]:
    """Returns the places of the first clips of each of the categories, category after category."""
    places: dict[str, list[int]] = {name: [] for name in categories}
    for place, clip in enumerate(clips):
        if clip.item.category in places:
            places[clip.item.category].append(place)
    return [place for own in places.values() for place in own[:per_category]]


def frames_of(scene: Scene, frames: int, fps: float, size: int, finer: int = 1) -> np.ndarray:
    """Renders frames (F, size, size, 3) ``uint8`` of a clip.

    Args:
        scene: What the clip shows.
        frames: F.
        fps: Frames per second.
        size: Side in pixels.
        finer: The clip is rendered at this multiple of the size and averaged down.
    """
    return render_at(scene, np.minimum(np.arange(frames) / fps / LAST_FRAME, 1), size, finer)


def rendered(clips: list[Clip], frames: int, fps: float, size: int) -> Tensor:
    """Renders frames (B, F, 3, size, size) ``uint8`` of clips. Arguments as in :func:`frames_of`."""
    videos = np.stack([frames_of(clip.scene, frames, fps, size) for clip in clips])
    return torch.from_numpy(videos).permute(0, 1, 4, 2, 3)


def decoder_frames(scene: Scene, decoder: DecoderConfig, seconds: float) -> np.ndarray:
    """Renders what the decoder is to show of a clip, (F, H, W, 3) ``uint8`` with F = 4k + 1."""
    return frames_of(scene, decoder_count(decoder, seconds), decoder.fps, decoder.height, finer=2)


def decoder_count(decoder: DecoderConfig, seconds: float) -> int:
    """Returns the frames of a video of the decoder, 4k + 1."""
    return 4 * (round(seconds * decoder.fps) // 4) + 1


@torch.no_grad()
def encode(folder: Path, config: WorldConfig, clips: list[Clip]) -> dict[str, Any]:
    """Writes what the frozen parts make of clips to ``folder/STORED``. Returns no figures.

    It holds ``grids`` (n, T, h, w, d_v), the encoder's features of all frames; ``latents`` (n, C, k + 1, h', w'); both
    in fp16; and ``pooled`` (n, d'), the decoder's text vectors of the captions.
    """
    device = distributed.device()
    encoder = build_feature_extractor(VTokConfig(weights=ENCODER)).eval().to(device)
    framework = shipped_framework()
    decoder, grids, latents, pooled = framework.decoder, [], [], []
    for first in range(0, len(clips), BATCH):
        batch = clips[first : first + BATCH]
        frames = rendered(batch, config.frames, config.fps, config.size)
        features = encoder(frames.flatten(0, 1).to(device))
        grids.append(features.half().cpu().unflatten(0, (len(batch), -1)))
        videos = np.stack([decoder_frames(clip.scene, framework.config.decoder, config.seconds) for clip in batch])
        shown = torch.from_numpy(videos).permute(0, 1, 4, 2, 3).to(device)
        latents.append(encode_video(decoder.vae, shown).mean.half().cpu())
        ids = [framework.text.caption_ids(clip.item.prompt) for clip in batch]
        pooled.append(torch.stack(decoder.encode_text(ids, device)).cpu())
    parts = {"grids": grids, "latents": latents, "pooled": pooled}
    stored = {name: torch.cat(part).contiguous() for name, part in parts.items()}
    save_file(stored, folder / STORED)
    return {}


class Encoded:
    """What :func:`encode` wrote, read when it is first asked for.

    Args:
        folder: Folder of the stage.
        clips: Its clips.

    Attributes:
        codec: Folder of the codec that makes the features of the clips, if an arm has its own.
    """

    codec: Path | None = None

    def __init__(self, folder: Path, clips: list[Clip]):
        self.folder, self.clips = folder, clips

    @cached_property
    def stored(self) -> dict[str, Tensor]:
        """``grids``, ``latents`` and ``pooled``."""
        return load_file(self.folder / STORED)

    def features(self, tokeniser: Tokeniser, places: slice | list[int] = slice(None)) -> VisualFeatures:
        """Returns the features of clips for a tokeniser, fp16 on the device; of all by default."""
        return features_of(tokeniser, self.stored["grids"][places], distributed.device())


class Coded(Encoded):
    """Clips whose features an arm's own codec made.

    Args:
        encoded: The clips.
        codec: Folder of the codec.
        tokens: Folder of the features.
    """

    def __init__(self, encoded: Encoded, codec: Path, tokens: Path):
        super().__init__(encoded.folder, encoded.clips)
        self.codec, self.tokens = codec, tokens

    def features(self, tokeniser: Tokeniser, places: slice | list[int] = slice(None)) -> VisualFeatures:
        return load_features(self.tokens / TOKENS, places)
