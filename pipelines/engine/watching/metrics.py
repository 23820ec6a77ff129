"""Writes a run's figures on rank 0: ``log.jsonl``, ``validation.jsonl``, its trackers and the console."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from pipelines.engine.logs import PatientFile, truncate_log
from pipelines.engine.watching.console import Console
from pipelines.engine.watching.examples import Caption, Video
from pipelines.engine.watching.trackers import Tracker

# Columns of ``log.jsonl``, by their group in the trackers.
GROUPS = {
    "loss": ("loss", "loss_under", "loss_vis_lm", "loss_dec"),
    "optim": ("grad_norm", "lr", "ema_distance", "skipped"),
    "data": ("bad_samples", "cut_texts"),
    "speed": ("samples_per_s", "tokens_per_s", "mfu", "hfu", "data_wait", "checkpoint_stall"),
    "ranks": ("slowest_rank", "slowest_rank_s", "median_rank_s"),
    "memory": ("gpu_allocated_gb", "gpu_reserved_gb", "host_gb"),
}
TAGS = {name: f"{group}/{name}" for group, names in GROUPS.items() for name in names}

# Columns that depend on the machine. All others are identical in two runs with the same settings.
MEASURED = (*GROUPS["speed"], *GROUPS["memory"], *GROUPS["ranks"], "rank_s")


class Metrics:
    """Writes one line per optimiser step and one per validation.

    Args:
        output: The run's folder.
        step: The step that the run starts from. Later lines of an earlier attempt are removed.
        max_steps: The run's last step, for the console.
        trackers: Show the figures.
    """

    def __init__(self, output: Path, step: int, max_steps: int, trackers: Sequence[Tracker] = ()):
        self.logs = {}
        for name in ("log", "validation"):
            truncate_log(output / f"{name}.jsonl", step)
            self.logs[name] = PatientFile(output / f"{name}.jsonl")
        self.trackers = trackers
        self.console = Console(step, max_steps)
        self.cut_told = False

    def write(self, line: dict) -> None:
        """Writes one step's figures: ``step`` and numbers. Text goes only to the log."""
        self._log("log", line)
        figures = {TAGS.get(name, name): value for name, value in line.items() if name != "step"}
        self._scalars(figures, line["step"])
        self.console.step(line)

    def validation(self, step: int, figures: dict, captions: list[Caption], videos: list[Video]) -> None:
        """Writes the results of a validation after ``step``."""
        self._log("validation", {"step": step} | figures)
        self._scalars({f"validation/{name}": value for name, value in figures.items()}, step)
        for caption in captions:
            told = f"**{caption.question}**\n\nexpected: {caption.expected}\n\nthe model: {caption.answer}"
            for tracker in self.trackers:
                tracker.text(f"captions/{caption.key}", told, step)
        for video in videos:
            for tracker in self.trackers:
                tracker.text(f"videos/{video.key}", video.prompt, step)
                tracker.video(f"videos/{video.key}", video, step)
        self.console.validation(step, figures)

    def say(self, text: str | None) -> None:
        """Prints a line, if there is one."""
        if text:
            self.console.say(text)

    def cut_texts(self, count: int) -> None:
        """Prints a line for the first step in which texts were cut."""
        if count and not self.cut_told:
            self.cut_told = True
            self.console.say(
                f"warning: {count} captions, answers or questions of this step are longer than mllm.max_text_tokens or "
                "decoder.max_prompt_tokens and are cut; cut_texts in log.jsonl counts them in each step"
            )

    def close(self) -> None:
        for log in self.logs.values():
            log.close()
        for tracker in self.trackers:
            tracker.close()
        self.console.close()

    def _log(self, name: str, line: dict) -> None:
        self.logs[name].write(json.dumps({key: json_value(value) for key, value in line.items()}).encode() + b"\n")
        self.logs[name].flush()

    def _scalars(self, values: dict, step: int) -> None:
        numbers = {tag: value for tag, value in values.items() if isinstance(value, (int, float))}
        for tracker in self.trackers:
            tracker.scalars(numbers, step)


def json_value(value):
    """Replaces NaN and infinity, which JSON does not have, by null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
