"""Rendered clips of which some are no videos."""

from collections.abc import Collection
from pathlib import Path

from data_tools.shapes import render_clips


def with_damage(folder: Path, clips: int, frames: int, damaged: Collection[int]) -> Path:
    """Renders clips into a folder, puts a text in the place of the damaged ones, and returns the folder."""
    render_clips(folder, clips, seed=0, frames=frames, size=32)
    for number in damaged:
        (folder / f"{number:03d}.mp4").write_text("no video")
    return folder
