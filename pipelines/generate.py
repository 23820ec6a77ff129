"""Make a video with a trained model.

python pipelines/generate.py --checkpoint OUTPUT --prompt "A red circle moves up." --output x.mp4
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from data_tools.errors import DataError
from pipelines.config import RunConfig, die
from pipelines.media import save_mp4
from pipelines.understand import load_run
from vtok.config import ConfigError, require
from vtok.framework import VTokFramework


def generate_video(
    config: RunConfig,
    framework: VTokFramework,
    prompt: str,
    output: Path,
    seconds: float,
    fps: float | None = None,
    steps: int = 50,
    temperature: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Write an mp4 of ``round(seconds * fps)`` frames; returns them, (F, 3, H, W) ``uint8``."""
    fps = fps or config.model.decoder.fps
    require(seconds > 0 and fps > 0, "--seconds and --fps must be positive")
    require(round(seconds * fps) >= 1, f"{seconds:g} s at {fps:g} frames per second are no frame at all")
    generator = torch.Generator().manual_seed(seed)
    frames = framework.generate(prompt, seconds, fps, steps, temperature, generator).cpu()
    save_mp4(frames, fps, output)
    return frames


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(description="Make a video with a trained model.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="output folder of a training run")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--output", type=Path, required=True, help="the mp4 to write")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--fps", type=float, default=24.0)
    parser.add_argument("--steps", type=int, default=50, help="denoising steps")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the sampled visual tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ema", action="store_true", help="use the average of the weights")
    a = parser.parse_args(argv)
    try:
        config, framework, _ = load_run(a.checkpoint, a.ema)
        frames = generate_video(config, framework, a.prompt, a.output, a.seconds, a.fps, a.steps, a.temperature, a.seed)
    except (ConfigError, DataError) as error:
        die("generate", error)
    print(f"{a.output}: {len(frames)} frames at {a.fps:g} per second")


if __name__ == "__main__":
    main(sys.argv[1:])
