"""Captions and videos that a model in training makes for a few held-out clips.

Under ZeRO-3 each rank needs the others' weights, so all ranks make every example from the same inputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from data_tools.dataset import Sample
from pipelines.config import RunConfig
from pipelines.engine.loading.loader import frames_of
from vtok.framework import VTokFramework
from vtok.generation import generate
from vtok.rows.prompts import CAPTION_INSTRUCTIONS
from vtok.tokeniser import VisualFeatures
from vtok.understanding import understand

MAX_CAPTION_TOKENS = 64


@dataclass
class Example:
    """The model's input from a sample, and the expected answer."""

    key: str
    frames: Tensor | VisualFeatures
    num_frames: int
    caption: str
    question: str
    expected: str
    seed: int  # seed of its video


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
    frames = frames_of([sample])
    return Example(
        key=sample.key,
        num_frames=sample.frames_valid,
        frames=frames if isinstance(frames, VisualFeatures) else frames[0, : sample.frames_valid],
        caption=sample.caption,
        question=sample.question or CAPTION_INSTRUCTIONS[0],
        expected=(sample.answer if sample.question else sample.caption) or "",
        seed=sample.draws.seed("video"),
    )


def caption_of(example: Example, framework: VTokFramework, device: torch.device) -> Caption:
    frames = example.frames.to(device, non_blocking=True)
    answer = understand(framework, frames, example.question, MAX_CAPTION_TOKENS, num_frames=example.num_frames)
    return Caption(example.key, example.question, example.expected, answer)


def video_of(example: Example, framework: VTokFramework, config: RunConfig) -> Video:
    generator = torch.Generator().manual_seed(example.seed)
    steps = config.validation.denoising_steps
    frames = generate(framework, example.caption, config.data.seconds, steps=steps, generator=generator)
    return Video(example.key, example.caption, frames.cpu(), config.model.decoder.fps)
