"""Runs ``evaluate.py vbench``: makes the videos, lets VBench score each dimension, and writes the table."""

import argparse
import csv
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path

from pipelines.cli.launcher import local_rank, rank_and_ranks
from pipelines.evaluation.stored_answers import answer_all, stored_answers, write_report
from pipelines.evaluation.vbench.suite import Environment, environment_of, prompts_of
from pipelines.evaluation.vbench.table import as_markdown, scores_in
from pipelines.evaluation.vbench.totals import totals
from pipelines.evaluation.vbench.videos import ENDING, SAMPLES, given_videos, require_there, wanted_videos
from pipelines.inference.generate import Wanted, make_videos
from pipelines.inference.load import load_run, weights_of
from pipelines.inference.noted import require_same, write_note, write_whole
from pipelines.inference.shares import own_share, read_prompts
from vtok.config import require

SETTINGS = "settings.json"  # of the videos and their scores; another start must ask for the same
SCORE = Path(__file__).with_name("score.py")
PATIENCE = 3600.0  # seconds in which the other ranks make a video, at least
PAUSE = 2.0  # seconds between two looks for them


def evaluate(a: argparse.Namespace) -> None:
    """Runs the command.

    Args:
        a: The arguments that ``evaluate.py`` parsed.

    Raises:
        ConfigError: The environment, the model or the output folder is wrong, or VBench could not score a dimension.
        DataError: Prompts, videos or results are wrong.
    """
    if a.results:
        print(as_markdown(scores_in(a.results)))
        return
    environment = environment_of(a.environment)
    videos, folder = videos_of(a, environment)
    common = settings_of(a, videos)
    require_same(a.output / SETTINGS, common)
    write_note(a.output / SETTINGS, common)
    write_listing(a.output, videos)
    if a.checkpoint:
        if wanted := [video for video in own_share(videos) if not video.path.exists()]:
            make_videos(load_run(Path(common["weights"]), a.ema), wanted, a)
        if missing := missing_after_waiting(videos):
            print(f"{missing} of {len(videos)} videos are still to come: from other ranks, or from another start")
            return
    prompts = None
    if a.prompts:
        folder = a.output / "vbench" / "shown"
        prompts = linked(videos, folder)
    failed: list[str] = []

    def answer(dimension: str) -> dict | None:
        answered = scored(environment, dimension, folder, a.output / "vbench", prompts)
        failed.extend([] if answered else [dimension])
        return answered

    answer_all(a.dimensions, a.output, common, answer)
    require(
        not failed,
        f"VBench could not score {', '.join(failed)}: see the logs in {a.output / 'vbench'}. It downloads weights at "
        "a first use: pipelines/README.md lists them",
    )
    stored = stored_answers(a.dimensions, a.output, common)
    if stored is not None:
        write_table(a.output, common, dict(zip(a.dimensions, stored)))


def missing_after_waiting(videos: list[Wanted]) -> int:
    """Waits for the videos of other ranks, while they go on making some, and returns how many are missing at last."""
    missing, since = sum(not video.path.exists() for video in videos), time.monotonic()
    while missing and rank_and_ranks()[1] > 1 and time.monotonic() - since < PATIENCE:
        time.sleep(PAUSE)
        before, missing = missing, sum(not video.path.exists() for video in videos)
        since = time.monotonic() if missing < before else since
    return missing


def videos_of(a: argparse.Namespace, environment: Environment) -> tuple[list[Wanted], Path]:
    """Returns the videos that VBench is to see, and their folder."""
    if a.videos and a.prompts:
        return given_videos(a.videos, a.prompts), a.videos
    folder = a.videos or a.output / "videos"
    if a.prompts:
        videos = wanted_videos(read_prompts(a.prompts), folder, a.samples, "numbered", a.seed)
    else:
        suite = prompts_of(environment.full_info, a.dimensions)
        videos = wanted_videos(suite, folder, SAMPLES, "vbench", a.seed)
    if a.videos:
        require_there(videos, a.videos)
    return videos, folder


def settings_of(a: argparse.Namespace, videos: list[Wanted]) -> dict:
    """Returns what decides the videos and their scores, for JSON."""
    listed = "\n".join(f"{video.path.name} {video.prompt}" for video in videos)
    shown = {"prompts": hashlib.sha256(listed.encode()).hexdigest()[:16]}
    if a.videos:
        return shown | {"videos": str(a.videos.resolve())}
    names = ("ema", "seconds", "fps", "steps", "temperature", "best_of", "seed")
    made = {name: getattr(a, name) for name in names}
    return shown | made | {"weights": str(weights_of(a.checkpoint).resolve())}


def linked(videos: list[Wanted], folder: Path) -> dict[str, str]:
    """Links videos into a folder as NUMBER.mp4, their rows in ``videos.csv``: VBench scores all that a folder holds.

    Returns:
        The prompt of each link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prompts = {}
    for row, video in enumerate(videos):
        link = folder / f"{row:06d}{ENDING}"
        with suppress(FileExistsError):  # of an earlier start, or of another rank
            link.symlink_to(video.path.resolve())
        prompts[link.name] = video.prompt
    return prompts


def write_listing(output: Path, videos: list[Wanted]) -> None:
    """Writes ``output/videos.csv``: the prompt of each video, and its seed (0 of a given one)."""
    text = StringIO()
    csv.writer(text).writerows([("path", "prompt", "seed"), *((v.path.name, v.prompt, v.seed) for v in videos)])
    write_whole(output / "videos.csv", text.getvalue())


def scored(
    environment: Environment, dimension: str, folder: Path, output: Path, prompts: Mapping[str, str] | None
) -> dict | None:
    """Lets VBench score a dimension. What it prints goes to ``output/DIMENSION.log``.

    Args:
        environment: VBench's environment.
        dimension: The dimension.
        folder: Folder of the videos.
        output: Folder of VBench's results.
        prompts: Prompt by the video's name in its folder; ``None`` for the suite's videos.

    Returns:
        Score and number of videos, or ``None`` if VBench failed.
    """
    output.mkdir(parents=True, exist_ok=True)
    job, log = output / f"{dimension}_job.json", output / f"{dimension}.log"
    arguments = {"full_info": str(environment.full_info), "videos": str(folder.resolve()),
                 "output": str(output.resolve()), "dimension": dimension, "prompts": prompts}  # fmt: skip
    job.write_text(json.dumps(arguments, ensure_ascii=False))
    command = [environment.python, SCORE, job.resolve()]
    variables = os.environ | {"LOCAL_RANK": str(local_rank())}  # which chooses the GPU
    with log.open("w") as file:
        ended = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=variables)
    if ended.returncode:
        last = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
        print(f"{dimension}: VBench failed: {last}", file=sys.stderr)
        return None
    result = json.loads((output / f"{dimension}_eval_results.json").read_text())[dimension]
    if not isinstance(result[0], int | float) or math.isnan(result[0]):
        print(f"{dimension}: VBench gives no number: {result[0]}", file=sys.stderr)
        return None
    print(f"{dimension}: {100 * result[0]:.2f}", flush=True)
    return {"score": result[0], "videos": len(result[1])}


def write_table(output: Path, common: dict, answers: Mapping[str, Mapping]) -> None:
    """Prints the table, and writes it and the report."""
    scores = {dimension: answer["score"] for dimension, answer in answers.items()}
    counts = {dimension: answer["videos"] for dimension, answer in answers.items()}
    table = as_markdown(scores, counts)
    write_whole(output / "table.md", f"{table}\n")
    write_report(output, {"settings": common, "scores": scores, "videos": counts, "totals": totals(scores)})
    print(table)
