"""Asks a model multiple-choice questions about given videos: accuracy by category, and the loss of the captions.

The model sees the question without the options, as in training. Its answer is the option that it finds likeliest; the
options of the shapes world are of nearly equal length, so the likelihood is not normalised. As a
control the same is asked about the first frame, repeated: a right answer there needed no video.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from data_tools.items import Item
from pipelines.evaluation.stored_answers import answer_all, stored_answers, write_report
from pipelines.evaluation.tables import Line, as_dict, categories_of, line_of
from pipelines.inference.load import Run
from pipelines.inference.understand import Understanding
from vtok.framework import VTokFramework
from vtok.rows.prompts import CAPTION_INSTRUCTIONS
from vtok.understanding import answer_losses, video_embeddings


@dataclass(frozen=True)
class Report:
    """The result of the questions.

    Attributes:
        lines: One for each category and one for all.
        caption_cross_entropy: Loss of the captions, in nats per token.
    """

    lines: list[Line]
    caption_cross_entropy: float


def ask_all(items: list[Item], videos: Path, load: Callable[[], Run], common: dict, output: Path) -> Report | None:
    """Asks about this rank's share of the videos. If all answers exist then, writes the report.

    Args:
        items: All items.
        videos: Folder of the videos ID.mp4.
        load: Loads the run. It is called only if an answer is missing.
        common: Settings that are stored with every answer.
        output: Folder of the answers and the report.

    Returns:
        The report, or ``None`` if answers are missing.

    Raises:
        ConfigError: ``output`` holds answers of another evaluation.
    """
    named = {item.id: item for item in items}
    answer_all(list(named), output, common, lambda name: asked(load(), named[name], videos / f"{name}.mp4"))
    stored = stored_answers(list(named), output, common)
    if stored is None:
        return None
    caption = sum(one["caption_loss"] for one in stored) / sum(one["caption_tokens"] for one in stored)
    lines = lines_of(items, stored)
    plain = [as_dict(line) for line in lines]
    write_report(output, {"settings": common, "lines": plain, "caption_cross_entropy": caption})
    return Report(lines, caption)


def asked(run: Run, item: Item, video: Path) -> dict:
    """Asks about a video and about its first frame, and measures the loss of the caption; returns all for JSON."""
    config, framework, step = run
    frames, every = Understanding(config, framework).seen(video)
    video, frozen = (
        video_embeddings(framework, shown, key_frame_every=every) for shown in (frames, frames[:1].expand_as(frames))
    )
    (caption,) = answer_losses(framework, video, [len(frames)], CAPTION_INSTRUCTIONS[0], [item.prompt])
    return {
        "said": likeliest(framework, video, len(frames), item),
        "frozen": likeliest(framework, frozen, len(frames), item),
        "caption_loss": float(caption.sum()),
        "caption_tokens": len(caption),
        "step": step,
    }


def likeliest(framework: VTokFramework, visual: Tensor, num_frames: int, item: Item) -> str:
    """Returns the option with the largest probability, its end token included.

    Args:
        framework: The model.
        visual: Embeddings of the video's tokens, (1, L, d).
        num_frames: Frames of the video.
        item: The item.
    """
    losses = answer_losses(framework, visual, [num_frames], item.question, list(item.options))
    return min(zip(item.options, losses), key=lambda pair: float(pair[1].sum()))[0]


def lines_of(items: list[Item], stored: list[dict]) -> list[Line]:
    """Returns a line for each category and one for all. The controls are chance, majority and the first frame."""
    said, frozen = ({item.id: one[what] for item, one in zip(items, stored)} for what in ("said", "frozen"))
    return [line_of(name, group, said, {"frozen": frozen}) for name, group in categories_of(items)]
