"""Visual tokens that an arm samples itself, for the second part of its training.

In training the decoder reads the tokens of true clips, in sampling those that the arm sampled. These are not exact, and
a decoder that has seen no such tokens believes them rather than the prompt. So without this part a video of sampled
tokens shows how well an arm was trained and hardly what its tokens tell.
"""

from pathlib import Path

import torch

from data_tools.draws import keyed_seed
from pipelines.shapes_study.strategies.config import StrategiesConfig
from pipelines.shapes_study.strategies.model import tokens_of
from pipelines.shapes_study.strategies.stored import load_features, save_features
from pipelines.shapes_study.strategies.world import Clip
from vtok.framework import VTokFramework
from vtok.tokeniser import VisualFeatures
from vtok.visual_sampling import sample_features

STORED = "tokens.safetensors"


def own_features(
    folder: Path, config: StrategiesConfig, framework: VTokFramework, clips: list[Clip], seed: int
) -> VisualFeatures:
    """Samples features from the prompts of clips, or reads those that ``folder`` keeps. Returns fp16 on the device.

    Args:
        folder: Keeps them.
        config: The study.
        framework: The arm after the first part of its training.
        clips: The clips.
        seed: The seed of the arm. A clip's noise depends on it and on the clip.
    """
    path = folder / STORED
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_features(sampled(config, framework.eval(), clips, seed), path)
        framework.train()
    return load_features(path)


def sampled(config: StrategiesConfig, framework: VTokFramework, clips: list[Clip], seed: int) -> VisualFeatures:
    """Samples the features of clips, in their order."""
    noise = [torch.Generator().manual_seed(keyed_seed(seed, place, "own")) for place in range(len(clips))]
    prompts = [clip.item.prompt for clip in clips]
    return sample_features(framework, prompts, tokens_of(config, framework), generators=noise)
