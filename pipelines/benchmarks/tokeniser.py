"""Frames to tokens, against CLIP alone on as many frames."""

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from pipelines.benchmarks.paired import cpu_seconds, ratio
from vtok.config import VTokConfig
from vtok.feature_extractor import CLIP_L_336, CLIPFeatureExtractor
from vtok.tokeniser import VTokTokeniser


@torch.no_grad()
def tokenising(layers: int = 24, image_size: int = 336, frames: int = 4, repeats: int = 3) -> float:
    """Frames/s of the tokeniser over those of a bare ``CLIPVisionModel`` that ends at the layer needed, -2.

    Both begin with the same frames, normalised by the time they reach the bare model: CLIP-L/336, random weights.
    """
    shape = CLIP_L_336 | dict(num_hidden_layers=layers, image_size=image_size)
    bare = CLIPVisionModel(CLIPVisionConfig(**shape | dict(num_hidden_layers=layers - 1))).eval()
    config = VTokConfig(token_dim=1024, fps=6, motion_tokens_per_second=6)
    tokeniser = VTokTokeniser(config, CLIPFeatureExtractor(CLIPVisionModel(CLIPVisionConfig(**shape)))).eval()
    clip = torch.randint(0, 256, (1, frames, 3, image_size, image_size), dtype=torch.uint8)
    pixels = torch.randn(frames, 3, image_size, image_size)
    tokeniser(clip), bare(pixels)
    return ratio(cpu_seconds(lambda: bare(pixels)), cpu_seconds(lambda: tokeniser(clip)), repeats)
