"""Multiple-choice questions to a model about given videos: accuracy by category, and how well it captions them.

The model's answer is the option it finds likeliest behind the question, as training shows it questions: without a list
of options. The same is asked about the first frame, standing still: what is right then needed no video.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from torch import Tensor

from data_tools.items import Item, read_items
from pipelines.stored_answers import answer_all, stored_answers, write_report
from pipelines.tv_align.protocol import Line, as_dict, as_table, categories_of, line_of
from pipelines.tv_align.run import Run, require_videos
from pipelines.understand import Understanding, load_run
from vtok.framework import VTokFramework
from vtok.prompts import CAPTION_INSTRUCTIONS


def evaluate(a: argparse.Namespace) -> None:
    """The command; arguments as ``evaluate.py`` parses them.

    Raises:
        ConfigError, DataError: what the user can mend.
    """
    items = read_items(a.items)
    require_videos(a.videos, [item.id for item in items])
    common = {"checkpoint": str(a.checkpoint.resolve()), "ema": a.ema, "videos": str(a.videos.resolve())}
    answers = ask_all(items, a.videos, cache(partial(load_run, a.checkpoint, a.ema)), common, a.output)
    if answers:
        print(f"{as_table(answers.lines)}\ncaptions: {answers.caption_cross_entropy:.4f} nats per token")


@dataclass(frozen=True)
class Report:
    """``caption_cross_entropy`` is in nats per token."""

    lines: list[Line]
    caption_cross_entropy: float


def ask_all(items: list[Item], videos: Path, load: Callable[[], Run], common: dict, output: Path) -> Report | None:
    """This rank's share of the answers, and the report, which is also written, if they are all there then.

    Args:
        load: the run, called when something is to be asked.
        common: what all answers have in common.

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
    """The likeliest option about a video and about its first frame, and the loss of the caption."""
    config, framework, step = run
    frames = Understanding(config, framework).frames_of(video)
    video, frozen = map(framework.video_embeddings, (frames, frames[:1].expand_as(frames)))
    (caption,) = framework.answer_losses(video, len(frames), CAPTION_INSTRUCTIONS[0], [item.prompt])
    return {
        "said": likeliest(framework, video, len(frames), item),
        "frozen": likeliest(framework, frozen, len(frames), item),
        "caption_loss": float(caption.sum()),
        "caption_tokens": len(caption),
        "step": step,
    }


def likeliest(framework: VTokFramework, visual: Tensor, num_frames: int, item: Item) -> str:
    """The option whose tokens, its end included, have the largest probability, given a video's tokens (1, L, d)."""
    losses = framework.answer_losses(visual, num_frames, item.question, list(item.options))
    return min(zip(item.options, losses), key=lambda pair: float(pair[1].sum()))[0]


def lines_of(items: list[Item], stored: list[dict]) -> list[Line]:
    """A line for each category, and one for all; controls: chance, majority and the first frame alone."""
    said, frozen = ({item.id: one[what] for item, one in zip(items, stored)} for what in ("said", "frozen"))
    return [line_of(name, group, said, {"frozen": frozen}) for name, group in categories_of(items)]
