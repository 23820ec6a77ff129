"""Fits the frozen autoencoder to the training clips, and stores these clips' latents for training the decoder."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from data_tools.items import read_items
from data_tools.shapes import TV_ALIGN, caption_of
from data_tools.shards import ShardReader
from data_tools.video.decode import validate
from data_tools.video.views import CENTRE, View, decoder_view, make_views, window
from pipelines.evaluation.judges.pixels import PixelJudge
from pipelines.shapes_study.config import LatentsConfig
from pipelines.shapes_study.render import scene_of_clip
from vtok.video_decoder import encode_video
from vtok.video_decoder.patch_autoencoder import PatchAutoencoder

VAE, LATENTS, CAPTIONS = "vae", "latents.safetensors", "captions.json"
FITTED_CLIPS = 2000
BATCH = 64


@torch.no_grad()
def make(folder: Path, config: LatentsConfig, seconds: float, render: Path, seed: int) -> dict[str, Any]:
    """Fits the autoencoder and encodes the N training clips.

    Writes ``folder/vae``; ``folder/latents.safetensors`` with ``mean`` (N, C, k + 1, h, w); and
    ``folder/captions.json`` with a short and a detailed caption for each clip.

    Args:
        folder: Folder of the stage.
        config: The settings.
        seconds: Length of a sample.
        render: Folder of the stage ``render``.
        seed: Seed that the clips were rendered with.

    Returns:
        The figures of :func:`ceiling`.
    """
    view = decoder_view(seconds, config.fps, config.size, config.size)
    reader = ShardReader(render / "shards")
    vae = PatchAutoencoder(latent_channels=config.channels)
    videos = torch.stack([seen(*stored(reader, row), seconds, view) for row in range(len(reader))])
    vae.fit(vae.blocks(scaled(videos[:FITTED_CLIPS])).flatten(0, -2))
    vae.save_pretrained(folder / VAE)
    means = torch.cat([encode_video(vae, batch).mean for batch in videos.split(BATCH)])
    save_file({"mean": means.contiguous()}, folder / LATENTS)
    captions = [captions_of(reader.read(row).meta, seed) for row in range(len(reader))]
    (folder / CAPTIONS).write_text(json.dumps(captions))
    return ceiling(vae, render / "dev", seconds, view)


def captions_of(meta: dict[str, Any], seed: int) -> tuple[str, str]:
    """Returns the caption of a training clip and a detailed one.

    Args:
        meta: The sample's facts.
        seed: Seed that the clips were rendered with.
    """
    scene, draws = scene_of_clip("train", meta["path"], seed)
    return meta["caption"], caption_of(scene, draws, detailed=True)


def stored(reader: ShardReader, row: int) -> tuple[bytes, float]:
    """Returns a sample's video file and its duration in seconds."""
    sample = reader.read(row)
    return sample.video, sample.meta["facts"]["duration"]


def seen(video: bytes | Path, duration: float, seconds: float, view: View) -> Tensor:
    """Returns the part of a clip that training shows the decoder, (F, 3, H, W) ``uint8``.

    Args:
        video: The video file, or its path.
        duration: Its length in seconds.
        seconds: Length of the part, taken from the centre.
        view: Frame rate and size.
    """
    return make_views(video, duration, view, None, window(duration, seconds, CENTRE)).frames


def scaled(videos: Tensor) -> Tensor:
    """Maps videos (B, F, 3, H, W) ``uint8`` to (B, 3, F, H, W) in [-1, 1]."""
    return videos.transpose(1, 2).float() / 127.5 - 1


def ceiling(vae: PatchAutoencoder, clips: Path, seconds: float, view: View) -> dict[str, Any]:
    """Measures the reconstructions of true clips, an upper bound for generated videos.

    Args:
        vae: The autoencoder.
        clips: Folder of the clips, with their items.
        seconds: Length of a sample.
        view: Frame rate and size.

    Returns:
        ``psnr`` in dB; ``ceiling``, the judge's accuracy on TV-Align's questions; ``items``, their number.
    """
    items = [item for item in read_items(clips / "items.jsonl") if item.category in TV_ALIGN]
    judge, right, errors = PixelJudge(), [], []
    for item in items:
        path = clips / f"{item.id}.mp4"
        video = seen(path, validate(path).duration, seconds, view)[None]
        pixels = scaled(video)
        again = vae.decode(encode_video(vae, video).mean).sample
        errors.append((again - pixels).square().mean())
        shown = ((again[0].transpose(0, 1) + 1) * 127.5).round().to(torch.uint8)
        frames = shown.permute(0, 2, 3, 1).numpy()
        right.append(judge.answer(frames, [frame / view.fps for frame in range(len(frames))], item) == item.answer)
    psnr = -10 * torch.log10(torch.stack(errors).mean() / 4)
    return {"psnr": float(psnr), "ceiling": sum(right) / len(right), "items": len(items)}
