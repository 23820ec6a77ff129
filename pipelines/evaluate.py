"""Judge generated videos by questions whose answers are known, or a VidTok by its reconstructions.

    python pipelines/evaluate.py tv-align --videos DIR --output RESULTS
    torchrun --nproc_per_node 8 pipelines/evaluate.py tv-align --checkpoint OUTPUT --output RESULTS --unconditional 50
    python pipelines/evaluate.py vidtok --config NAME --checkpoint X --data DIR

TV-Align's videos are DIR/ID.mp4, or are generated from the items' prompts into RESULTS/videos. Ranks share the work
without talking to each other; started again, only what is missing is made and asked. The rank that finds all answers
there prints the table and writes RESULTS/report.json.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import numpy as np

from data_tools.draws import keyed_seed
from data_tools.errors import DataError
from data_tools.items import Item, read_items
from data_tools.shapes import CATEGORIES
from data_tools.shapes.judge import answer
from data_tools.shards import atomic_write
from data_tools.video import whole_frames
from pipelines import tv_align, vidtok_scores
from pipelines.accuracy import wilson
from pipelines.config import die
from pipelines.generate import generate_video
from pipelines.shares import own_share, rank_and_ranks
from pipelines.tv_align.protocol import Answers, Line, Viewing, as_table, report, viewings
from pipelines.understand import load_run
from vtok.config import ConfigError, require

JUDGED_WIDTH = 64  # pixels: larger pictures are averaged down to about this


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    protocols = parser.add_subparsers(required=True, metavar="PROTOCOL")
    vidtok_command(protocols.add_parser("vidtok", help="how near are a VidTok's reconstructions?"))
    command = protocols.add_parser("tv-align", help="does a video show what its prompt says?")
    command.set_defaults(evaluate=evaluate_tv_align)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--videos", type=Path, help="folder of ID.mp4 for each item")
    what.add_argument("--checkpoint", type=Path, help="output folder of a training run, to generate them with")
    command.add_argument("--items", type=Path, default=tv_align.FOLDER / "shapes.jsonl", help="JSONL of questions")
    command.add_argument("--output", type=Path, required=True, help="folder of the answers and the report")
    command.add_argument("--unconditional", type=int, default=0, help="videos without a prompt, as a control")
    command.add_argument("--seconds", type=float, default=3.0)
    command.add_argument("--fps", type=float, default=8.0)
    command.add_argument("--steps", type=int, default=50, help="denoising steps")
    command.add_argument("--temperature", type=float, default=1.0, help="of the sampled visual tokens")
    command.add_argument("--seed", type=int, default=0, help="each item's own follows from it")
    command.add_argument("--ema", action="store_true", help="use the average of the weights")
    command.add_argument("--local_rank", help=argparse.SUPPRESS)  # the deepspeed launcher's; the environment is used
    return parser.parse_args(argv)


def vidtok_command(command: argparse.ArgumentParser) -> None:
    command.set_defaults(evaluate=vidtok_scores.evaluate)
    command.add_argument("--config", required=True, help="a published name, or a YAML file")
    command.add_argument("--checkpoint", type=Path, required=True, help="the published .ckpt, or a .safetensors")
    command.add_argument("--data", type=Path, required=True, help="folder of videos")
    command.add_argument("--meta-path", type=Path, help=".csv with a column 'videos' of paths in that folder")
    command.add_argument("--height", type=int, default=256)
    command.add_argument("--width", type=int, default=256)
    command.add_argument("--fps", type=float, default=30.0)
    command.add_argument("--lpips", type=Path, nargs=2, metavar=("VGG16", "LINEAR"), help="the weights of LPIPS")
    command.add_argument("--output", type=Path, default=Path("vidtok_scores.json"), help="JSON file to write")


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    a = parse_arguments(argv)
    try:
        a.evaluate(a)
    except (ConfigError, DataError) as error:
        die("evaluate", error, rank_and_ranks()[0])


def evaluate_tv_align(a: argparse.Namespace) -> None:
    """Raises ConfigError or DataError for what the user can mend."""
    require(a.unconditional == 0 or a.checkpoint is not None, "--unconditional goes with --checkpoint")
    require(a.unconditional >= 0, "--unconditional must not be negative")
    items = read_items(a.items)
    for item in items:
        check_judged(item, a.items)
    viewed = viewings(items, a.unconditional, a.seed)
    video = given_videos(a.videos, viewed) if a.videos else partial(generated_video, a, run_loader(a))
    judge_all(own_share(viewed), video, a.output / "answers", settings(a))
    finish(items, viewed, a.output, settings(a))


def check_judged(item: Item, path: Path) -> None:
    """Raises DataError for an item that the judge of pixels has no words for."""
    known = CATEGORIES[item.category].answers.values() if item.category in CATEGORIES else ()
    if not set(item.options) <= set(known):
        raise DataError(f"{path}: {item.id} is not about the shapes world, which is all that this judge knows")


def settings(a: argparse.Namespace) -> dict:
    """What all answers of one report have in common."""
    if a.videos:
        return {"videos": str(a.videos.resolve())}
    return {"checkpoint": str(a.checkpoint.resolve())} | {
        name: getattr(a, name) for name in ("ema", "seconds", "fps", "steps", "temperature", "seed")
    }


def run_loader(a: argparse.Namespace) -> Callable:
    """The run, loaded when first asked for."""
    return cache(partial(load_run, a.checkpoint, a.ema))


def given_videos(folder: Path, viewed: list[Viewing]) -> Callable[[Viewing], tuple[Path, dict]]:
    """Raises DataError, before anything is judged, if a video is missing."""
    missing = [viewing.name for viewing in viewed if not (folder / f"{viewing.name}.mp4").is_file()]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of {len(viewed)} videos, the first is {missing[0]}.mp4")
    return lambda viewing: (folder / f"{viewing.name}.mp4", {})


def generated_video(a: argparse.Namespace, load: Callable, viewing: Viewing) -> tuple[Path, dict]:
    """Its path, made if it is not there yet, and how it was made."""
    path = a.output / "videos" / f"{viewing.name}.mp4"
    seed = keyed_seed(a.seed, 0, f"tv-align/{viewing.name}")
    config, framework, step = load()
    if not path.exists():
        generate_video(config, framework, viewing.prompt, path, a.seconds, a.fps, a.steps, a.temperature, seed)
    return path, {"seed": seed, "step": step}


def judge_all(viewed: list[Viewing], video: Callable[[Viewing], tuple[Path, dict]], folder: Path, common: dict) -> None:
    """Write ``folder/NAME.json`` for each video that has none yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for viewing in viewed:
        path = folder / f"{viewing.name}.json"
        if path.exists():
            continue
        place, made = video(viewing)
        frames = read_frames(place)
        frozen = np.repeat(frames[:1], len(frames), axis=0)
        answers = {
            "said": {item.id: answer(frames, item) for item in viewing.asked},
            "frozen": {viewing.own.id: answer(frozen, viewing.own)} if viewing.own else {},
        }
        with atomic_write(path) as file:
            file.write(json.dumps(answers | {"settings": common} | made, ensure_ascii=False).encode() + b"\n")


def finish(items: list[Item], viewed: list[Viewing], output: Path, common: dict) -> None:
    """Print and write the report, if all answers are there.

    Raises:
        ConfigError: some were given under other settings, or about another step of the run.
    """
    paths = [output / "answers" / f"{viewing.name}.json" for viewing in viewed]
    missing = sum(not path.exists() for path in paths)
    if missing:
        print(f"{missing} of {len(paths)} answers are still to come, from the other ranks or from another start")
        return
    stored = [json.loads(path.read_bytes()) for path in paths]
    same = all(one["settings"] == common for one in stored) and len({one.get("step") for one in stored}) == 1
    asked = all(one["said"].keys() == {item.id for item in viewing.asked} for one, viewing in zip(stored, viewed))
    require(same and asked, f"{output} holds answers of another evaluation: choose another --output or delete it")
    lines = report(items, viewed, [Answers(one["said"], one["frozen"]) for one in stored])
    part = output / f"report.json.rank{rank_and_ranks()[0]}.part"  # two ranks may come to the end together
    part.write_text(json.dumps({"settings": common, "lines": [as_dict(line) for line in lines]}, indent=1) + "\n")
    part.replace(output / "report.json")
    print(as_table(lines))


def as_dict(line: Line) -> dict:
    return asdict(line) | {"interval": asdict(wilson(line.right, line.asked))}


def read_frames(path: Path) -> np.ndarray:
    """All frames of a video, uint8 RGB (F, H, W, 3), averaged down to about the width that the judge is made for.

    Raises:
        BadVideo: it cannot be decoded.
    """
    frames = np.stack([frame.to_ndarray(format="rgb24") for _, frame in whole_frames(path)])
    n = max(1, frames.shape[2] // JUDGED_WIDTH)
    count, height, width = len(frames), frames.shape[1] // n, frames.shape[2] // n
    blocks = frames[:, : height * n, : width * n].reshape(count, height, n, width, n, 3)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8)


if __name__ == "__main__":
    main(sys.argv[1:])
