"""Multiple-choice questions to a model about given videos: accuracy by category, and how well it captions them.

The model's answer is the option it finds likeliest behind the question, as training shows it questions: without a list
of options. The same is asked about the first frame, standing still: what is right then needed no video.
"""

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path

from torch import Tensor

from data_tools.items import Item, read_items
from pipelines.stored_answers import answer_all, stored_answers, write_report
from pipelines.tv_align.protocol import Line, as_dict, as_table, categories_of, line_of
from pipelines.tv_align.run import require_videos
from pipelines.understand import Understanding, load_run
from vtok.framework import VTokFramework
from vtok.prompts import CAPTION_INSTRUCTIONS


def evaluate(a: argparse.Namespace) -> None:
    """The command; arguments as ``evaluate.py`` parses them.

    Raises:
        ConfigError, DataError: what the user can mend.
    """
    items = {item.id: item for item in read_items(a.items)}
    require_videos(a.videos, list(items))
    common = {"checkpoint": str(a.checkpoint.resolve()), "ema": a.ema, "videos": str(a.videos.resolve())}

    @cache
    def load() -> tuple[Understanding, int]:
        config, framework, step = load_run(a.checkpoint, a.ema)
        return Understanding(config, framework), step

    answer_all(list(items), a.output, common, lambda name: asked(load, items[name], a.videos / f"{name}.mp4"))
    stored = stored_answers(list(items), a.output, common)
    if stored is None:
        return
    lines = report(list(items.values()), stored)
    caption = sum(one["caption_loss"] for one in stored) / sum(one["caption_tokens"] for one in stored)
    write_report(
        a.output,
        {"settings": common, "lines": [as_dict(line) for line in lines], "caption_cross_entropy": caption},
    )
    print(f"{as_table(lines)}\ncaptions: {caption:.4f} nats per token")


def asked(load: Callable[[], tuple[Understanding, int]], item: Item, video: Path) -> dict:
    """The likeliest option about a video and about its first frame, and the loss of the caption."""
    understanding, step = load()
    frames, framework = understanding.frames_of(video), understanding.framework
    (caption,) = framework.answer_losses(frames, CAPTION_INSTRUCTIONS[0], [item.prompt])
    return {
        "said": likeliest(framework, frames, item),
        "frozen": likeliest(framework, frames[:1].expand_as(frames), item),
        "caption_loss": float(caption.sum()),
        "caption_tokens": len(caption),
        "step": step,
    }


def likeliest(framework: VTokFramework, frames: Tensor, item: Item) -> str:
    """The option whose tokens, its end included, have the largest probability."""
    losses = framework.answer_losses(frames, item.question, list(item.options))
    return min(zip(item.options, losses), key=lambda pair: float(pair[1].sum()))[0]


def report(items: list[Item], stored: list[dict]) -> list[Line]:
    """A line for each category, and one for all; controls: chance, majority and the first frame alone."""
    said, frozen = ({item.id: one[what] for item, one in zip(items, stored)} for what in ("said", "frozen"))
    return [line_of(name, group, said, {"frozen": frozen}) for name, group in categories_of(items)]
