"""TV-Align: videos, given or generated from the items' prompts into OUTPUT/videos, and what a judge says about them."""

import argparse
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

from data_tools.draws import keyed_seed
from data_tools.errors import DataError
from data_tools.items import read_items
from pipelines.generate import generate_video
from pipelines.judges.base import Judge, read_frames
from pipelines.judges.pixels import PixelJudge
from pipelines.judges.qwen import QwenJudge, QwenJudgeConfig
from pipelines.stored_answers import answer_all, stored_answers, write_report
from pipelines.tv_align.protocol import Answers, Viewing, as_dict, as_table, report, viewings
from pipelines.understand import load_run
from vtok.config import require


def evaluate(a: argparse.Namespace) -> None:
    """The command; arguments as ``evaluate.py`` parses them.

    Raises:
        ConfigError, DataError: what the user can mend.
    """
    require(a.unconditional == 0 or a.checkpoint is not None, "--unconditional goes with --checkpoint")
    require(a.unconditional >= 0, "--unconditional must not be negative")
    items = read_items(a.items)
    judge = build_judge(a)
    if reasons := [reason for item in items if (reason := judge.refusal(item))]:
        raise DataError(f"{a.items}: {reasons[0]}")
    viewed = {viewing.name: viewing for viewing in viewings(items, a.unconditional, a.seed)}
    if a.videos:
        require_videos(a.videos, list(viewed))
    video = partial(given_video, a.videos) if a.videos else partial(generated_video, a, run_loader(a))
    common = settings(a) | judge.settings
    answer_all(list(viewed), a.output, common, lambda name: judged(judge, viewed[name], *video(viewed[name])))
    stored = stored_answers(list(viewed), a.output, common)
    if stored is None:
        return
    asked = all(one["said"].keys() == {item.id for item in v.asked} for one, v in zip(stored, viewed.values()))
    require(asked, f"{a.output} holds answers to other items: choose another --output or delete it")
    lines = report(items, list(viewed.values()), [Answers(one["said"], one["frozen"]) for one in stored])
    write_report(a.output, {"settings": common, "lines": [as_dict(line) for line in lines]})
    print(as_table(lines))


def build_judge(a: argparse.Namespace) -> Judge:
    return PixelJudge() if a.judge == "pixels" else QwenJudge(QwenJudgeConfig.from_yaml(a.judge_config))


def settings(a: argparse.Namespace) -> dict:
    """What all videos of one report have in common."""
    if a.videos:
        return {"videos": str(a.videos.resolve())}
    return {"checkpoint": str(a.checkpoint.resolve())} | {
        name: getattr(a, name) for name in ("ema", "seconds", "fps", "steps", "temperature", "seed")
    }


def run_loader(a: argparse.Namespace) -> Callable:
    """The run, loaded when first asked for."""
    return cache(partial(load_run, a.checkpoint, a.ema))


def require_videos(folder: Path, names: list[str]) -> None:
    """Raises DataError, before anything is asked, if a video is missing."""
    missing = [name for name in names if not (folder / f"{name}.mp4").is_file()]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of {len(names)} videos, the first is {missing[0]}.mp4")


def given_video(folder: Path, viewing: Viewing) -> tuple[Path, dict]:
    return folder / f"{viewing.name}.mp4", {}


def generated_video(a: argparse.Namespace, load: Callable, viewing: Viewing) -> tuple[Path, dict]:
    """Its path, made if it is not there yet, and how it was made."""
    path = a.output / "videos" / f"{viewing.name}.mp4"
    seed = keyed_seed(a.seed, 0, f"tv-align/{viewing.name}")
    config, framework, step = load()
    if not path.exists():
        generate_video(config, framework, viewing.prompt, path, a.seconds, a.fps, a.steps, a.temperature, seed)
    return path, {"seed": seed, "step": step}


def judged(judge: Judge, viewing: Viewing, video: Path, made: dict) -> dict:
    """What the judge says about a video, and about its first frame alone."""
    frames, times = read_frames(video)
    frozen = np.repeat(frames[:1], len(frames), axis=0)
    return {
        "said": {item.id: judge.answer(frames, times, item) for item in viewing.asked},
        "frozen": {viewing.own.id: judge.answer(frozen, times, viewing.own)} if viewing.own else {},
    } | made
