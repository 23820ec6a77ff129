"""A study to be kept: its report, with the figures and the frozen models that it rests on.

Left out is what can be made again: clips, features, checkpoints, states of trainings. Copied to where a study's output
is to be, ``stages`` is gone on with: the report is written again from its figures, and what is missing is trained.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from pipelines.study.clip import CLIP, TEXT, TOKENIZER
from pipelines.study.dit import HUNYUAN
from pipelines.study.latents import VAE
from pipelines.study.llm import LLAVA
from pipelines.study.plots import first_videos
from pipelines.study.report import CURVES, REPORT, VIDEOS
from pipelines.study.stages import BEGUN, DONE, Done

STAGES = "stages"
MODELS = {"clip": (CLIP, TEXT, TOKENIZER), "latents": (VAE,), "llava": (LLAVA,), "dit": (HUNYUAN,)}  # later stages' need


def publish(output: Path, folder: Path, stages: Iterable[Done], shown: Iterable[Path]) -> None:
    """Copy a study's report to ``folder``, and the stages to ``folder/stages``.

    Args:
        stages: all that are done, but for those that others are to make again.
        shown: folders with videos, of which the report has the first.
    """
    for name in (REPORT, CURVES, VIDEOS):
        copy(output / name, folder / name)
    files = [stage.folder / name for stage in stages for name in (BEGUN, DONE, *MODELS.get(stage.folder.name, ()))]
    for path in (*files, *(video for videos in shown for video in first_videos(videos))):
        copy(path, folder / STAGES / path.relative_to(output))


def copy(path: Path, to: Path) -> None:
    """A file or a folder, if it is there."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, to, dirs_exist_ok=True)
    elif path.exists():
        shutil.copyfile(path, to)
