"""Checks of a command's arguments, made before anything is loaded."""

import argparse
import math
import os
from pathlib import Path

from pipelines.config import require_seed
from vtok.config import require

MAX_FRAMES, MAX_STEPS, MAX_NEW_TOKENS = 100_000, 10_000, 100_000
MAX_SAMPLES, MAX_SIDE = 100_000, 16_384
MAX_NAME = 255  # bytes


def require_generation(a: argparse.Namespace) -> None:
    """Checks the arguments of a command that generates videos: ``seconds``, ``fps``, ``steps`` and so on.

    Without ``fps`` the rate is the decoder's, which is not known yet.

    Raises:
        ConfigError: A value is impossible.
    """
    for name in ("seconds", "fps"):
        value = getattr(a, name)
        require(value is None or 0 < value < math.inf, f"--{name} must be positive and finite, not {value}")
    require_frames(a.seconds, a.fps or 1 / a.seconds)
    require(1 <= a.steps <= MAX_STEPS, f"--steps must lie between 1 and {MAX_STEPS:,}, not {a.steps}")
    require(0 <= a.temperature < math.inf, f"--temperature must be finite and not negative, not {a.temperature:g}")
    require(a.best_of >= 1, f"--best_of must be at least 1, not {a.best_of}")
    require(a.batch_size >= 1, f"--batch_size must be at least 1, not {a.batch_size}")
    require_seed(a.seed)


def require_picture(height: int, width: int, fps: float, chunk: int) -> None:
    """Raises ConfigError if the size of frames, their rate or the frames of a chunk are impossible."""
    for name, side in {"height": height, "width": width}.items():
        require(1 <= side <= MAX_SIDE, f"--{name} must lie between 1 and {MAX_SIDE:,}, not {side}")
    require(0 < fps < math.inf, f"--fps must be positive and finite, not {fps:g}")
    require(1 <= chunk < MAX_FRAMES, f"--chunk must lie between 1 and {MAX_FRAMES:,}, not {chunk}")


def require_frames(seconds: float, fps: float) -> None:
    """Raises ConfigError if a video has no frame, or more than ``MAX_FRAMES``."""
    frames, span = seconds * fps, f"{seconds:g} s at {fps:g} frames per second are"
    require(frames < MAX_FRAMES, f"{span} {frames:.4g} frames: take at most {MAX_FRAMES:,}")
    require(round(frames) >= 1, f"{span} no frame at all")


def require_text(option: str, text: str) -> None:
    """Raises ConfigError if a text is blank."""
    require(bool(text.strip()), f"{option} is empty")


def require_new_file(option: str, path: Path) -> None:
    """Raises ConfigError unless a file can be written at a path. It may exist already."""
    require(not os.path.isdir(path), f"{option} {path} is a folder: name a file in it")
    require_writable(option, path)


def require_ending(option: str, path: Path, ending: str) -> None:
    """Raises ConfigError unless the name of a file that is to be written ends in ``ending``, which says what it is."""
    require(path.suffix.lower() == ending, f"{option} {path} must end in {ending}: that is what the file will be")


def require_new_folder(option: str, path: Path) -> None:
    """Raises ConfigError unless a folder can be made at a path, or is there and can be written to."""
    require(not os.path.lexists(path) or os.path.isdir(path), f"{option} {path} is a file, and must be a folder")
    require_writable(option, path)


def require_writable(option: str, path: Path) -> None:
    """Raises ConfigError unless a path's nearest folder can be written to and takes the rest of its names."""
    folder = path
    while not os.path.isdir(folder):
        within = folder == path or not os.path.lexists(folder)
        require(within, f"cannot write {option} {path}: {folder} is not a folder")
        fits = len(os.fsencode(f"{folder.name}.part")) <= MAX_NAME
        require(fits, f"cannot write {option} {str(path)[:60]}...: its name is too long")
        folder = folder.parent
    require(os.access(folder, os.W_OK | os.X_OK), f"cannot write {option} {path}: {folder} is read-only for you")
