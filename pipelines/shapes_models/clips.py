"""Makes what the decoder is trained on: the autoencoder, latents of clips, tokens of their first frames, captions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionModel

from data_tools.draws import Draws
from data_tools.shapes import Scene, caption_of, draw_scene, render_at
from pipelines.shapes_models.clip import CLIP
from pipelines.shapes_models.config import ModelsConfig
from pipelines.shapes_models.llava import picture_tokens
from vtok.feature_extractor import CLIPFeatureExtractor
from vtok.video_decoder import encode_video
from vtok.video_decoder.patch_autoencoder import PatchAutoencoder

VAE, LATENTS, CAPTIONS = "vae", "latents.safetensors", "captions.json"
SPLIT = "train"  # all combinations of colour, shape and label, except those that the study tests on
FITTED = 4000  # clips that the autoencoder is fitted to
BATCH = 500
FINER = 2  # a clip is rendered at this multiple of the decoder's size and averaged down


@torch.no_grad()
def make(folder: Path, config: ModelsConfig, clip: Path) -> dict[str, Any]:
    """Fits the autoencoder and draws the N clips.

    Writes ``folder/vae``; ``folder/latents.safetensors`` with the latents ``mean`` (N, C, k + 1, h, w) and CLIP's
    tokens of the first frames ``key_frame`` (N, S, d_v), both ``float16``; and ``folder/captions.json`` with two lists,
    the short and the detailed captions.

    Args:
        folder: Folder of the stage.
        config: The settings.
        clip: Folder of the stage ``clip``.

    Returns:
        No figures.
    """
    clips, seed, size = config.clips, config.later_seed, config.render.size
    vae = PatchAutoencoder(latent_channels=config.latents.channels)
    fitted = torch.stack([frames_of(scene_at(seed, number)[0], config) for number in range(min(clips, FITTED))])
    vae.fit(vae.blocks(scaled(fitted)).flatten(0, -2))
    vae.save_pretrained(folder / VAE)
    extractor = CLIPFeatureExtractor(CLIPVisionModel.from_pretrained(clip / CLIP))
    means, key_frames, captions = [], [], []
    for start in range(0, clips, BATCH):
        scenes = [scene_at(seed, number) for number in range(start, min(start + BATCH, clips))]
        means.append(encode_video(vae, torch.stack([frames_of(scene, config) for scene, _ in scenes])).mean.half())
        first = torch.from_numpy(np.stack([render_at(scene, np.zeros(1), size)[0] for scene, _ in scenes]))
        key_frames.append(picture_tokens(extractor, first.permute(0, 3, 1, 2), config.grid).half())
        captions += [(caption_of(*drawn), caption_of(*drawn, detailed=True)) for drawn in scenes]
    stored = {"mean": torch.cat(means), "key_frame": torch.cat(key_frames)}
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / LATENTS)
    (folder / CAPTIONS).write_text(json.dumps(list(zip(*captions))))
    return {}


def scene_at(seed: int, number: int) -> tuple[Scene, Draws]:
    """Draws a scene of the training distribution; also returns its draws."""
    draws = Draws(seed, number)
    return draw_scene(draws, SPLIT), draws


def frames_of(scene: Scene, config: ModelsConfig) -> Tensor:
    """Returns the frames that the decoder sees of a rendered clip, (F, 3, H, W) ``uint8``."""
    size, fps, rendered = config.latents.size, config.latents.fps, config.render
    count = 4 * int(config.seconds * fps / 4) + 1
    shown = np.floor(np.arange(count) * rendered.fps / fps + 1e-6).clip(max=rendered.frames - 1)
    return torch.from_numpy(render_at(scene, shown / (rendered.frames - 1), size, FINER)).permute(0, 3, 1, 2)


def scaled(videos: Tensor) -> Tensor:
    """Maps videos (B, F, 3, H, W) ``uint8`` to (B, 3, F, H, W) in [-1, 1]."""
    return videos.transpose(1, 2).float() / 127.5 - 1
