"""Videos of the same prompts and seeds by two models, side by side."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from data_tools.dataset import captions_of
from data_tools.errors import BadVideo
from data_tools.shards import ShardReader
from data_tools.video.media import encode_gif
from pipelines.demo.picture import Panel, animation
from pipelines.inference.generate import Wanted, generate_videos
from pipelines.inference.load import load_run
from pipelines.inference.shares import read_prompts
from vtok.config import ConfigError

FRAMES = "videos.safetensors"  # of all videos of a folder, written last
PICTURE = "before_after.gif"


def prompts_for(file: Path | None, reader: ShardReader, count: int) -> list[str]:
    """Returns the prompts to compare: the first ones of a file, else the first distinct captions of the clips.

    Raises:
        DataError: The file cannot be read.
    """
    if file is not None:
        return read_prompts(file)[:count]
    return list(islice(dict.fromkeys(captions(reader)), count))


def captions(reader: ShardReader) -> Iterator[str]:
    """Yields the first caption of each clip that has one."""
    for row in range(len(reader)):
        try:
            first = captions_of(reader.read(row).meta)[0]
        except BadVideo:  # training replaces it and logs it
            continue
        if first.strip():
            yield first


def make_videos(
    model: Path, folder: Path, prompts: list[str], seconds: float, steps: int, seed: int, ema: bool = False
) -> None:
    """Makes a model's videos of the prompts, unless they are there.

    Args:
        model: A run, a checkpoint, an export or a hub id.
        folder: Folder of the videos.
        prompts: The prompts.
        seconds: Length of a video.
        steps: Denoising steps.
        seed: Seed of every video.
        ema: Whether to take the average of a run's weights.

    Raises:
        ConfigError: There is no such model, or the device has no room for it.
    """
    asked = json.dumps([str(model), prompts, seconds, steps, seed, ema])
    path, part = folder / FRAMES, folder / f"{FRAMES}.part"
    if path.exists() and made_for(path) == asked:
        return
    wanted = [Wanted(folder / f"{number}.mp4", prompt, seed) for number, prompt in enumerate(prompts)]
    try:
        config, framework, _ = load_run(model, ema)
        videos = generate_videos(config, framework, wanted, seconds, steps=steps)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"{folder}: the device has no room for the whole model with its text encoder: --samples 0 makes no videos"
        ) from error
    save_file({"videos": videos}, part, {"asked": asked})
    part.rename(path)


def made_for(path: Path) -> str:
    """Returns what the videos of a file were asked for."""
    with safe_open(path, "pt") as file:
        return file.metadata()["asked"]


def draw(prompts: list[str], folders: list[Path], fps: float, output: Path) -> Path:
    """Draws the videos of each prompt side by side, as one GIF.

    Args:
        prompts: The prompts.
        folders: ``before`` and ``after``, or one of them.
        fps: Frames per second.
        output: Folder of the picture.

    Returns:
        Its path.
    """
    found = {folder.name: load_file(folder / FRAMES)["videos"] for folder in folders if (folder / FRAMES).exists()}
    panels = [
        Panel(videos[number], f"{name}: {prompt}", "")
        for number, prompt in enumerate(prompts)
        for name, videos in found.items()
    ]
    frames, fps = animation(panels, fps)
    (output / PICTURE).write_bytes(encode_gif(frames, fps))
    return output / PICTURE
