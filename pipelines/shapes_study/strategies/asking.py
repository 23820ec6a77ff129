"""What a trained arm answers about clips."""

from dataclasses import replace
from typing import Any

import torch

from pipelines.shapes_study.questions import likeliest
from pipelines.shapes_study.strategies.model import chosen
from pipelines.shapes_study.strategies.world import Encoded
from vtok.framework import VTokFramework
from vtok.tokeniser import build_tokeniser


@torch.no_grad()
def ask(framework: VTokFramework, world: Encoded, frames: int) -> dict[str, Any]:
    """Asks an arm about clips, each from its tokens alone.

    Args:
        framework: The trained arm, at evaluation.
        world: The clips to ask about.
        frames: Frames of a clip.

    Returns:
        ``right``: 1 for each question whose likeliest option is right, else 0.
    """
    features = world.features(framework.tokeniser)
    right = []
    for place, clip in enumerate(world.clips):
        visual = framework.embedded(framework.restored(chosen(features, [place])))
        right.append(int(likeliest(framework, visual, frames, clip.item) == clip.item.answer))
    return {"right": right}


def read_training_free(framework: VTokFramework) -> None:
    """Makes a model read ``training_free`` tokens instead of those that it was trained on, in place."""
    settings = replace(framework.config.tokeniser, strategy="training_free", sampled_frames=None)
    framework.tokeniser = build_tokeniser(settings, framework.tokeniser.feature_extractor).to(framework.mllm.device)
    framework.projection.positions.place = framework.tokeniser.place
    framework.config = replace(framework.config, tokeniser=settings)
