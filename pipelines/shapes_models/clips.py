"""Makes the clips that the decoder is trained on: latents of a wider autoencoder, and captions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from data_tools.draws import Draws
from data_tools.shapes import Scene, caption_of, draw_scene, render_at
from pipelines.shapes_models.wider import wider_autoencoder
from pipelines.shapes_study.config import StudyConfig
from pipelines.shapes_study.latents import CAPTIONS, LATENTS, VAE, scaled
from vtok.video_decoder import encode_video
from vtok.video_decoder.patch_autoencoder import PatchAutoencoder

SPLIT = "train"  # all combinations of colour, shape and label, except those that the study tests on
FITTED = 4000  # clips that the autoencoder's new axes are fitted to
BATCH = 500
FINER = 2  # a clip is rendered at this multiple of the decoder's size and averaged down


@torch.no_grad()
def make(folder: Path, clips: int, channels: int, study: StudyConfig, latents: Path, seed: int) -> dict[str, Any]:
    """Writes ``folder/vae``, ``folder/latents.safetensors`` (``mean``, (clips, C, k + 1, h, w)) and the captions.

    Args:
        folder: Folder of the stage.
        clips: Number of clips.
        channels: Channels of the latents, C.
        study: The study. The clips have the frame rate and the size of its decoder.
        latents: Folder of the study's stage ``latents``.
        seed: Seed of the scenes.

    Returns:
        No figures.
    """
    scenes = [scene_at(seed, number) for number in range(clips)]
    videos = torch.stack([frames_of(scene, study) for scene, _ in scenes])
    narrow = PatchAutoencoder.from_pretrained(latents / VAE)
    vae = wider_autoencoder(narrow, channels, narrow.blocks(scaled(videos[:FITTED])).flatten(0, -2))
    vae.save_pretrained(folder / VAE)
    means = torch.cat([encode_video(vae, batch).mean.half() for batch in videos.split(BATCH)])
    save_file({"mean": means.contiguous()}, folder / LATENTS)
    (folder / CAPTIONS).write_text(json.dumps([caption for _, caption in scenes]))
    return {}


def scene_at(seed: int, number: int) -> tuple[Scene, str]:
    """Draws a scene of the training distribution, and its caption."""
    draws = Draws(seed, number)
    scene = draw_scene(draws, SPLIT)
    return scene, caption_of(scene, draws)


def frames_of(scene: Scene, study: StudyConfig) -> Tensor:
    """Returns the frames that the decoder sees of a rendered clip, (F, 3, H, W) ``uint8``."""
    size, fps, rendered = study.latents.size, study.latents.fps, study.render
    count = 4 * int(study.seconds * fps / 4) + 1
    shown = np.floor(np.arange(count) * rendered.fps / fps + 1e-6).clip(max=rendered.frames - 1)
    fine = render_at(scene, shown / (rendered.frames - 1), FINER * size).astype(np.float32)
    frames = fine.reshape(count, size, FINER, size, FINER, 3).mean((2, 4))
    return torch.from_numpy((frames + 0.5).astype(np.uint8)).permute(0, 3, 1, 2)
