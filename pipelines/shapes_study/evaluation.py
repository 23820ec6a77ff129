"""Evaluates a trained arm: its answers about the test clips, and the judge's answers about its videos."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from data_tools.items import Item, read_items
from data_tools.shapes import CATEGORIES, TV_ALIGN
from pipelines.config import RunConfig, TrainConfig
from pipelines.engine import distributed
from pipelines.evaluation.judges.pixels import PixelJudge
from pipelines.evaluation.tables import Line
from pipelines.evaluation.tv_align.protocol import viewings
from pipelines.evaluation.tv_align.run import Generation, generated_videos, judge_videos
from pipelines.inference.load import Run
from pipelines.shapes_study.config import StudyConfig
from pipelines.shapes_study.questions import ask_all
from pipelines.shapes_study.seeds import share
from pipelines.shapes_study.stages import gate
from vtok.framework import VTokFramework
from vtok.tokeniser import build_tokeniser

VIDEOS_AT_ONCE = 20  # one video is so small that calling the transformer takes longer than running it


def understanding(folder: Path, study: StudyConfig, load: Callable[[], Run], clips: Path) -> dict[str, Any]:
    """Asks an arm multiple-choice questions about clips.

    Args:
        folder: Folder of the stage; keeps the answers.
        study: The study.
        load: Loads the run.
        clips: Folder of the clips, with their items.

    Returns:
        ``lines``, one for each category and one for all, and ``caption_cross_entropy``, in nats per token.
    """
    items = balanced(read_items(clips / "items.jsonl"), study.evaluation.questions)
    report = ask_all(items, clips, load, {}, folder)
    return {"lines": plain(report.lines), "caption_cross_entropy": report.caption_cross_entropy}


def generation(
    folder: Path, study: StudyConfig, load: Callable[[], Run], clips: Path, per_category: int, real: bool = False
) -> dict[str, Any]:
    """Generates videos for the clips' captions and has the pixel judge answer questions about them.

    Args:
        folder: Folder of the stage; keeps videos and answers.
        study: The study.
        load: Loads the run.
        clips: Folder of the clips, with their items.
        per_category: Captions per category of TV-Align.
        real: Whether to condition on the tokens of the true clips instead of sampled ones.

    Returns:
        ``lines``, one for each category and one for all.
    """
    items = [item for item in read_items(clips / "items.jsonl") if item.category in TV_ALIGN]
    viewed = viewings(balanced(items, per_category), 0, study.seed)
    how = Generation(
        seconds=study.seconds, fps=study.latents.fps, steps=study.evaluation.denoising_steps,
        temperature=study.evaluation.temperature, seed=study.seed, real_tokens=clips if real else None,
    )  # fmt: skip
    videos = generated_videos(how, viewed, folder / "videos", load, VIDEOS_AT_ONCE)
    lines = judge_videos([viewing.own for viewing in viewed], viewed, PixelJudge(), videos, {}, folder)
    return {"lines": plain(lines)}


def read_training_free(run: Run) -> Run:
    """Gives a run ``training_free`` tokens instead of those it was trained on.

    The framework is changed in place, so the run must not be used otherwise afterwards.
    """
    config, framework, step = run
    settings = replace(framework.config.tokeniser, strategy="training_free", sampled_frames=None)
    framework.tokeniser = build_tokeniser(settings, framework.tokeniser.feature_extractor).to(distributed.device())
    framework.projection.positions.place = framework.tokeniser.place
    framework.config = replace(framework.config, tokeniser=settings)
    return replace(config, model=framework.config), framework, step


def choose_guidance(folder: Path, study: StudyConfig, framework: VTokFramework, clips: Path) -> dict[str, Any]:
    """Chooses the guidance scale whose videos of dev captions get the most right answers; of equals, the smallest.

    Returns:
        ``accuracy`` by scale, and ``guidance``, the scale.
    """
    right = {}
    for scale in sorted(study.dit.guidance):
        framework.config.decoder.true_guidance = scale
        figures = generation(folder / f"{scale:g}", study, untrained(framework), clips, study.dit.guidance_videos)
        right[scale] = share(figures["lines"][-1])
    return {"accuracy": right, "guidance": max(right, key=right.get)}


def untrained(framework: VTokFramework) -> Callable[[], Run]:
    """Returns a loader of a run at step 0, with this framework."""
    return lambda: (RunConfig(TrainConfig(max_steps=1), model=framework.config), framework, 0)


def text_gate(folder: Path, study: StudyConfig, framework: VTokFramework, clips: Path) -> dict[str, Any]:
    """Runs the gate of the decoder: videos from captions alone, before joint training, should beat chance."""
    figures = generation(folder, study, untrained(framework), clips, study.dit.gate_videos)
    total = figures["lines"][-1]
    chance = total["controls"]["chance"]
    return figures | gate("text alone reaches the decoder", total["right"], total["asked"], chance)


def balanced(items: list[Item], per_category: int) -> list[Item]:
    """Returns the first ``per_category`` items of each category, category after category."""
    groups = {category: [item for item in items if item.category == category] for category in CATEGORIES}
    return [item for group in groups.values() for item in group[:per_category]]


def plain(lines: list[Line]) -> list[dict[str, Any]]:
    """Returns the lines as dictionaries."""
    return [asdict(line) for line in lines]
