"""Runs TV-Align: a judge answers questions about videos, which are given or generated from the items' prompts."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path

import numpy as np

from data_tools.draws import keyed_seed
from data_tools.errors import DataError
from data_tools.items import Item, read_items
from pipelines.cli.checks import MAX_SAMPLES
from pipelines.evaluation.judges.base import Judge, read_frames
from pipelines.evaluation.judges.openai import OpenAIJudge
from pipelines.evaluation.judges.pixels import PixelJudge
from pipelines.evaluation.judges.qwen import QwenJudge, QwenJudgeConfig
from pipelines.evaluation.results import item_result, lines_of, place_of, write_results
from pipelines.evaluation.stored_answers import answer_all, stored_answers
from pipelines.evaluation.tables import Line, as_table
from pipelines.evaluation.tv_align.protocol import (
    FREE,
    FROZEN,
    JUDGE,
    SHUFFLED,
    Answers,
    Viewing,
    sayings,
    viewings,
)
from pipelines.inference.generate import Wanted, generate_videos
from pipelines.inference.load import Run, load_run
from pipelines.inference.shares import own_share
from pipelines.inference.understand import Understanding
from vtok.config import require
from vtok.sampling import Sampling

# Returns the path of a viewing's video, and the facts to store with the answers about it.
Videos = Callable[[Viewing], tuple[Path, dict]]


@dataclass(frozen=True)
class Generation:
    """How videos are generated.

    Attributes:
        seconds: Length of a video.
        fps: Frames per second of the files; by default the decoder's.
        steps: Denoising steps.
        temperature: Temperature of the sampled visual tokens.
        best_of: Videos made of a prompt, of which the model keeps one (:mod:`vtok.best_of`).
        seed: Determines the seed of each item.
        real_tokens: Folder of true videos ID.mp4. If set, their tokens replace the sampled ones.
    """

    seconds: float = 3.0
    fps: float | None = None
    steps: int = 50
    temperature: float = 1.0
    best_of: int = 1
    seed: int = 0
    real_tokens: Path | None = None

    @property
    def settings(self) -> dict:
        """The attributes as plain data, for JSON."""
        real = str(self.real_tokens.resolve()) if self.real_tokens else None
        return vars(self) | {"real_tokens": real}


def evaluate(a: argparse.Namespace) -> None:
    """Runs the command ``evaluate.py tv-align``.

    Args:
        a: The arguments that ``evaluate.py`` parsed.

    Raises:
        ConfigError: An argument or the checkpoint is wrong.
        DataError: The items or videos are wrong.
    """
    require(a.unconditional == 0 or a.checkpoint is not None, "--unconditional goes with --checkpoint")
    require(0 <= a.unconditional <= MAX_SAMPLES, f"--unconditional must lie between 0 and {MAX_SAMPLES:,}")
    require(a.real_tokens is None or a.checkpoint is not None, "--real_tokens goes with --checkpoint")
    require(a.real_tokens is None or a.unconditional == 0, "--real_tokens does not go with --unconditional")
    items = read_items(a.items)
    judge = build_judge(a)
    if reasons := [reason for item in items if (reason := judge.refusal(item))]:
        raise DataError(f"{a.items}: {reasons[0]}")
    viewed = viewings(items, a.unconditional, a.seed)
    if a.videos:
        common, videos = {"videos": str(a.videos.resolve())}, given_videos(a.videos, viewed)
    else:
        how = Generation(
            seconds=a.seconds, fps=a.fps, steps=a.steps, temperature=a.temperature, best_of=a.best_of, seed=a.seed,
            real_tokens=a.real_tokens,
        )  # fmt: skip
        if a.real_tokens:
            require_videos(a.real_tokens, [viewing.name for viewing in viewed])
        common = {"checkpoint": str(a.checkpoint.resolve()), "ema": a.ema} | how.settings
        load = cache(partial(load_run, a.checkpoint, a.ema))
        videos = generated_videos(how, viewed, a.output / "videos", load, a.batch_size)
    lines = judge_videos(items, viewed, judge, videos, common, a.output)
    if isinstance(judge, OpenAIJudge):
        print(judge.endpoint.told(), file=sys.stderr)
    if lines:
        print(as_table(lines))


def build_judge(a: argparse.Namespace) -> Judge:
    """Builds the judge that the arguments name.

    Raises:
        ConfigError: Its settings are wrong, or its weights cannot be loaded.
    """
    if a.judge == "openai":
        return OpenAIJudge.at(a.judge_url, a.judge_model, a.judge_cache or a.output / "judge_cache")
    return PixelJudge() if a.judge == "pixels" else QwenJudge(QwenJudgeConfig.from_yaml(a.judge_config))


def require_videos(folder: Path, names: list[str]) -> None:
    """Checks that a folder has a video NAME.mp4 for each name.

    Raises:
        DataError: Videos are missing; the message names the first.
    """
    missing = [name for name in names if not (folder / f"{name}.mp4").is_file()]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of {len(names)} videos, the first is {missing[0]}.mp4")


def given_videos(folder: Path, viewed: list[Viewing]) -> Videos:
    """Returns the lookup of existing videos.

    Raises:
        DataError: A video is missing.
    """
    require_videos(folder, [viewing.name for viewing in viewed])
    return lambda viewing: (folder / f"{viewing.name}.mp4", {})


def generated_videos(
    how: Generation, viewed: list[Viewing], folder: Path, load: Callable[[], Run], batch_size: int
) -> Videos:
    """Returns a lookup that generates missing videos.

    A missing video is generated together with the next missing ones of this rank.

    Args:
        how: Settings of the generation.
        viewed: All viewings.
        folder: Folder of the videos.
        load: Loads the run. It is called only if a video is asked for.
        batch_size: Videos that are denoised together.
    """
    own = own_share(viewed)

    def path_of(viewing: Viewing) -> Path:
        return folder / f"{viewing.name}.mp4"

    def seed_of(viewing: Viewing) -> int:
        return keyed_seed(how.seed, 0, f"tv-align/{viewing.name}")

    def generated(viewing: Viewing) -> tuple[Path, dict]:
        config, framework, step = load()
        if not path_of(viewing).exists():
            sight = Understanding(config, framework)

            def wanted_of(each: Viewing) -> Wanted:
                true = how.real_tokens and sight.features_of(how.real_tokens / f"{each.name}.mp4")
                return Wanted(path_of(each), each.prompt, seed_of(each), true)

            missing = (each for each in own[own.index(viewing) :] if not path_of(each).exists())
            wanted = list(map(wanted_of, islice(missing, batch_size)))
            sampling = Sampling(how.temperature, best_of=how.best_of)
            generate_videos(config, framework, wanted, how.seconds, how.fps, how.steps, sampling)
        return path_of(viewing), {"seed": seed_of(viewing), "step": step}

    return generated


def judge_videos(
    items: list[Item], viewed: list[Viewing], judge: Judge, videos: Videos, common: dict, output: Path
) -> list[Line] | None:
    """Asks the judge about this rank's share of the videos. If all answers exist then, writes the report.

    Args:
        items: All items.
        viewed: All viewings.
        judge: The judge.
        videos: The lookup of videos.
        common: Settings that are stored with every answer.
        output: Folder of the answers and the report.

    Returns:
        The lines of the report, or ``None`` if answers are missing.

    Raises:
        ConfigError: ``output`` holds answers of another evaluation.
    """
    named, common = {viewing.name: viewing for viewing in viewed}, common | judge.settings
    answer_all(list(named), output, common, lambda name: judged(judge, named[name], *videos(named[name]), output))
    stored = stored_answers(list(named), output, common)
    if stored is None:
        return None
    asked = [one["said"].keys() == {item.id for item in viewing.asked} for one, viewing in zip(stored, viewed)]
    require(
        all(asked) and all("video" in one for one in stored),
        f"{output} holds answers to other items: choose another --output or delete it",
    )
    told = sayings(viewed, [Answers(one["said"], one["frozen"]) for one in stored])
    paths = {viewing.own.id: one["video"] for one, viewing in zip(stored, viewed) if viewing.own}
    results = [
        item_result(item.id, item.category, paths[item.id], item.prompt, item.question, item.options, item.answer,
                    told[item.id])
        for item in items
    ]  # fmt: skip
    controls = [FROZEN, SHUFFLED] + [FREE] * any(FREE in said for said in told.values())
    lines = lines_of(results, JUDGE, *controls)
    write_results(output, common, {JUDGE: lines}, results)
    return lines


def judged(judge: Judge, viewing: Viewing, video: Path, made: dict, output: Path) -> dict:
    """Asks the judge about a video and about its first frame, and returns the answers for JSON.

    Args:
        judge: The judge.
        viewing: The questions.
        video: Path of the video.
        made: Facts about the video, returned with the answers.
        output: Folder of the evaluation.
    """
    frames, times = read_frames(video)
    frozen = np.repeat(frames[:1], len(frames), axis=0)
    return {
        "said": {item.id: judge.answer(frames, times, item) for item in viewing.asked},
        "frozen": {viewing.own.id: judge.answer(frozen, times, viewing.own)} if viewing.own else {},
        "video": place_of(video, output),
    } | made
