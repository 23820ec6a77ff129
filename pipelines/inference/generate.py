"""Makes videos of prompts and writes them to files."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data_tools.video.media import save_mp4
from pipelines.cli.checks import require_frames
from pipelines.config import RunConfig
from pipelines.inference.load import Run, load_run, weights_of
from pipelines.inference.shares import NOTE, Outputs, own_share, read_prompts
from vtok.config import require
from vtok.framework import VTokFramework
from vtok.generation import generate_batch
from vtok.sampling import PLAIN, Sampling
from vtok.tokeniser import VisualFeatures

MAX_NAME_BYTES = 255


class Wanted(NamedTuple):
    """A video to generate.

    Attributes:
        path: File to write.
        prompt: Its prompt.
        seed: Seed of its draws.
        features: Features of a true video. Its tokens then replace sampled ones.
    """

    path: Path
    prompt: str
    seed: int = 0
    features: VisualFeatures | None = None


def generate_videos(
    config: RunConfig,
    framework: VTokFramework,
    wanted: Sequence[Wanted],
    seconds: float,
    fps: float | None = None,
    steps: int = 50,
    sampling: Sampling = PLAIN,
) -> Tensor:
    """Generates videos and writes each as an mp4 of F = ``round(seconds * fps)`` frames.

    Args:
        config: Configuration of the run.
        framework: The model.
        wanted: The B videos to make, as one batch. All have features, or none.
        seconds: Length of a video.
        fps: Frames per second of the files, by default the decoder's (see :func:`vtok.generation.generate_batch`).
        steps: Denoising steps.
        sampling: How visual tokens are sampled.

    Returns:
        All frames, (B, F, 3, H, W) ``uint8``.

    Raises:
        ConfigError: The length or the frame rate is out of range.
    """
    fps = fps or config.model.decoder.fps
    require(seconds > 0 and fps > 0, "--seconds and --fps must be positive")
    for rate in (fps, config.model.decoder.fps):
        require_frames(seconds, rate)
    paths, prompts, seeds, features = map(list, zip(*wanted))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    real = None if features[0] is None else features
    videos = generate_batch(framework, prompts, seconds, fps, steps, sampling, generators, real).cpu()
    for path, frames in zip(paths, videos):
        save_mp4(frames, fps, path)
    return videos


def generate_missing(a: argparse.Namespace) -> None:
    """Runs the command ``generate.py``: writes those of this rank's videos that do not exist yet.

    Args:
        a: The arguments that ``generate.py`` parsed.

    Raises:
        ConfigError: A prompt, a size or the checkpoint is wrong, or there are videos of other ones.
        DataError: The prompts cannot be read.
    """
    if not a.prompts:
        if own := own_share([Wanted(a.output, a.prompt, a.seed)]):
            make_videos(load_run(a.checkpoint, a.ema), own, a)
        return
    paths = video_paths(read_prompts(a.prompts), a.output, a.samples, a.layout)
    weights = weights_of(a.checkpoint).resolve()
    outputs = asked_for(a, weights, {path.name: prompt for path, (prompt, _) in paths.items()})
    missing = outputs.missing()
    wanted = [Wanted(path, prompt, a.seed + sample) for path, (prompt, sample) in paths.items()]
    if own := [one for one in own_share(wanted) if one.path.name in missing]:
        run = load_run(weights, a.ema)
        outputs.begin()
        make_videos(run, own, a)


def asked_for(a: argparse.Namespace, weights: Path, prompts: dict[str, str]) -> Outputs:
    """Returns the videos of many prompts with all that decides them.

    VBench takes the first file of its folder for a video, so the note of such a folder stands beside it.

    Args:
        a: The arguments that ``generate.py`` parsed.
        weights: Folder of the model's weights.
        prompts: The prompt of each video, by its name.
    """
    made = {name: getattr(a, name) for name in ("ema", "seconds", "fps", "steps", "seed")}
    settings = {"weights": str(weights)} | made | asdict(a.sampling)
    folder = a.output.resolve()
    note = folder / NOTE if a.layout == "numbered" else folder.with_name(f"{folder.name}.{NOTE}")
    return Outputs(a.output, note, settings, prompts)


def make_videos(run: Run, wanted: Sequence[Wanted], a: argparse.Namespace) -> None:
    """Writes videos, ``a.batch_size`` at a time.

    Args:
        run: The model.
        wanted: The videos.
        a: ``seconds``, ``fps``, ``steps``, ``sampling`` and ``batch_size``.
    """
    config, framework, _ = run
    for start in range(0, len(wanted), a.batch_size):
        batch = wanted[start : start + a.batch_size]
        videos = generate_videos(config, framework, batch, a.seconds, a.fps, a.steps, a.sampling)
        for one, frames in zip(batch, videos):
            print(f"{one.path}: {len(frames)} frames, {a.seconds:g} s", flush=True)


def video_paths(prompts: list[str], folder: Path, samples: int, layout: str) -> dict[Path, tuple[str, int]]:
    """Returns the files of all samples of all prompts, {path: (prompt, sample)}.

    Args:
        prompts: The prompts.
        folder: Folder of the files.
        samples: Samples per prompt.
        layout: ``numbered`` by the prompt's row, or ``vbench``: ``{prompt}-{sample}.mp4``, which VBench reads.

    Raises:
        ConfigError: A prompt cannot be part of a file name.
    """
    paths = {}
    for row, prompt in enumerate(prompts):
        stem = f"{row:06d}" if layout == "numbered" else prompt
        for sample in range(samples):
            name = f"{stem}-{sample}.mp4"
            fits = "/" not in name and "\0" not in name and len(f"{name}.part".encode()) <= MAX_NAME_BYTES
            require(fits, f"prompt {row} cannot name a file, as --layout vbench wants: {prompt[:60]!r}")
            paths[folder / name] = (prompt, sample)
    return paths
