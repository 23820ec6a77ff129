"""What a trained arm says about the test clips, and what the judge says about the arm's videos."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from data_tools.items import Item, read_items
from data_tools.shapes import CATEGORIES, TV_ALIGN
from pipelines.config import RunConfig, TrainConfig
from pipelines.engine import distributed
from pipelines.judges.pixels import PixelJudge
from pipelines.questions import ask_all
from pipelines.study.config import StudyConfig
from pipelines.study.seeds import share
from pipelines.study.stages import gate
from pipelines.tv_align.protocol import Line, viewings
from pipelines.tv_align.run import Generation, Run, generated_videos, judge_videos
from vtok.framework import VTokFramework
from vtok.tokeniser import build_tokeniser

VIDEOS_AT_ONCE = 20  # denoised together: one is so small that calling the transformer takes longer than running it


def understanding(folder: Path, study: StudyConfig, load: Callable[[], Run], clips: Path) -> dict[str, Any]:
    """Answers to multiple-choice questions about clips."""
    items = balanced(read_items(clips / "items.jsonl"), study.evaluation.questions)
    report = ask_all(items, clips, load, {}, folder)
    return {"lines": plain(report.lines), "caption_cross_entropy": report.caption_cross_entropy}


def generation(
    folder: Path, study: StudyConfig, load: Callable[[], Run], clips: Path, per_category: int, real: bool = False
) -> dict[str, Any]:
    """The judge's answers about videos for the clips' captions, of TV-Align's categories.

    Args:
        real: condition on the tokens of the true clips.
    """
    items = [item for item in read_items(clips / "items.jsonl") if item.category in TV_ALIGN]
    viewed = viewings(balanced(items, per_category), 0, study.seed)
    how = Generation(
        study.seconds, study.latents.fps, study.evaluation.denoising_steps, study.evaluation.temperature, study.seed,
        clips if real else None,
    )  # fmt: skip
    videos = generated_videos(how, viewed, folder / "videos", load, VIDEOS_AT_ONCE)
    lines = judge_videos([viewing.own for viewing in viewed], viewed, PixelJudge(), videos, {}, folder)
    return {"lines": plain(lines)}


def read_training_free(run: Run) -> Run:
    """The run with ``training_free`` tokens in the place of those it was trained on; the run itself is spent by it."""
    config, framework, step = run
    settings = replace(framework.config.tokeniser, strategy="training_free", sampled_frames=None)
    framework.tokeniser = build_tokeniser(settings, framework.tokeniser.feature_extractor).to(distributed.device())
    framework.projection.positions.place = framework.tokeniser.place
    framework.config = replace(framework.config, tokeniser=settings)
    return replace(config, model=framework.config), framework, step


def choose_guidance(folder: Path, study: StudyConfig, framework: VTokFramework, clips: Path) -> dict[str, Any]:
    """The scale with which the judge finds most of what dev captions say, the smallest of equals."""
    right = {}
    for scale in sorted(study.dit.guidance):
        framework.config.decoder.true_guidance = scale
        figures = generation(folder / f"{scale:g}", study, untrained(framework), clips, study.dit.guidance_videos)
        right[scale] = share(figures["lines"][-1])
    return {"accuracy": right, "guidance": max(right, key=right.get)}


def untrained(framework: VTokFramework) -> Callable[[], Run]:
    """A run that has not begun."""
    return lambda: (RunConfig(TrainConfig(max_steps=1), model=framework.config), framework, 0)


def text_gate(folder: Path, study: StudyConfig, framework: VTokFramework, clips: Path) -> dict[str, Any]:
    """Videos for captions alone, before any joint training: above chance?"""
    figures = generation(folder, study, untrained(framework), clips, study.dit.gate_videos)
    total = figures["lines"][-1]
    chance = total["controls"]["chance"]
    return figures | gate("text alone reaches the decoder", total["right"], total["asked"], chance)


def balanced(items: list[Item], per_category: int) -> list[Item]:
    """The first so many items of each category, category after category."""
    groups = {category: [item for item in items if item.category == category] for category in CATEGORIES}
    return [item for group in groups.values() for item in group[:per_category]]


def plain(lines: list[Line]) -> list[dict[str, Any]]:
    return [asdict(line) for line in lines]
