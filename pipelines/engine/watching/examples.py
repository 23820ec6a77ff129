"""Captions and videos that a model in training makes for a few held-out clips.

Under ZeRO-3 each rank needs the others' weights, so all ranks make every example from the same inputs.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from data_tools.dataset import Sample
from pipelines.config import RunConfig
from pipelines.engine.loading.loader import frames_of
from vtok.framework import VTokFramework
from vtok.generation import generate
from vtok.rows.prompts import CAPTION_INSTRUCTIONS
from vtok.tokeniser import VisualFeatures
from vtok.understanding import understand, understand_several

MAX_CAPTION_TOKENS = 64


@dataclass
class Example:
    """The model's input from a sample, and the expected answer."""

    key: str
    frames: Tensor | VisualFeatures | list[Tensor]  # a list if the question is about several media
    num_frames: int
    caption: str
    question: str
    expected: str
    seed: int  # seed of its video
    at: list[int] = field(default_factory=list)  # characters of the question before each of several media


@dataclass
class Caption:
    """The model's answer about a clip."""

    key: str
    question: str
    expected: str
    answer: str


@dataclass
class Video:
    """The model's video for a clip's caption: frames (F, 3, H, W) ``uint8``."""

    key: str
    prompt: str
    frames: Tensor
    fps: float


def example_of(sample: Sample) -> Example:
    """Returns the first question of a sample, with what it shows."""
    frames: Tensor | VisualFeatures | list[Tensor]
    shown = [(turn, at, n) for n, (turn, at) in enumerate(sample.places) if turn == 0]
    if sample.frames is None:
        frames = frames_of([sample])
    elif sample.places:
        media = [sample.frames, *sample.others]
        frames = [media[n] for *_, n in shown]
    else:
        frames = sample.frames[: sample.frames_valid]
    return Example(
        key=sample.key,
        num_frames=sample.frames_valid,
        frames=frames,
        at=[at for _, at, _ in shown],
        caption=sample.caption,
        question=sample.question or CAPTION_INSTRUCTIONS[0],
        expected=(sample.answer if sample.question else sample.caption) or "",
        seed=sample.draws.seed("video"),
    )


def caption_of(example: Example, framework: VTokFramework, device: torch.device) -> Caption:
    if isinstance(example.frames, list):
        media = [frames.to(device, non_blocking=True) for frames in example.frames]
        answer = understand_several(framework, media, example.question, example.at, MAX_CAPTION_TOKENS)
        return Caption(example.key, example.question, example.expected, answer)
    frames = example.frames.to(device, non_blocking=True)
    answer = understand(framework, frames, example.question, MAX_CAPTION_TOKENS, num_frames=example.num_frames)
    return Caption(example.key, example.question, example.expected, answer)


def video_of(example: Example, framework: VTokFramework, config: RunConfig) -> Video:
    generator = torch.Generator().manual_seed(example.seed)
    steps = config.validation.denoising_steps
    frames = generate(framework, example.caption, config.data.seconds, steps=steps, generator=generator)
    return Video(example.key, example.caption, frames.cpu(), config.model.decoder.fps)
