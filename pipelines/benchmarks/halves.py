"""What training on new data gains, and what it forgets: the shapes world in halves, one after the other.

    shapes/llava-next --> trained on clips at rest --+--> all weights trained on clips that move
                                                     +--> adapters (LoRA) trained on clips that move, at two rates

Each model then describes held-out clips of both halves. Only captions are trained on: ``L_under`` alone, without
decoder losses.
"""

import csv
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from data_tools.draws import Draws
from data_tools.packing import build_shards
from data_tools.shapes import CATEGORIES, draw_scene, render_clips
from data_tools.shapes.reading import AT_REST
from pipelines.inference.load import load_run
from pipelines.inference.understand import Understanding
from pipelines.shapes_models.clips import SPLIT
from pipelines.shapes_models.joint import described

ROOT = Path(__file__).parents[2]
HALVES = {"at rest": frozenset(AT_REST), "moving": frozenset(CATEGORIES) - frozenset(AT_REST)}
ADAPTERS = ("--model.mllm.lora.rank", 8, "--model.mllm.lora.alpha", 16)
# How the second half is trained on: a name, the rate of learning, options.
THEN = (
    ("all weights", 1e-3, ()),
    ("adapters", 1e-3, ADAPTERS),
    ("adapters at four times the rate", 4e-3, ADAPTERS),
)


class Size(NamedTuple):
    """How much is trained and asked.

    Attributes:
        clips: Clips to train on, of both halves together.
        asked: Held-out clips, of both halves together.
        first: Steps on the first half.
        then: Steps on the second half.
    """

    clips: int = 1600
    asked: int = 160
    first: int = 500
    then: int = 250


QUICK = Size(clips=24, asked=6, first=2, then=2)


def gained_and_forgotten(folder: Path, size: Size) -> dict[str, dict[str, float]]:
    """Returns each model's share of right captions, by half.

    Args:
        folder: An empty folder.
        size: How much is trained and asked.
    """
    clips, held_out = folder / "clips", folder / "held_out"
    render_clips(clips, size.clips, seed=1, split=SPLIT)
    render_clips(held_out, size.asked, seed=2, split=SPLIT)
    shards = {half: packed(clips, half, folder / half.replace(" ", "_")) for half in HALVES}
    first = folder / "first"
    train(first, shards["at rest"], size.first, 1e-3, "--init.weights", "null")
    models = {"at rest": first}
    for name, lr, options in THEN:
        models[f"then moving, {name}"] = run = folder / name.replace(" ", "_")
        train(run, shards["moving"], size.then, lr, "--init.weights", first, *options)
    return {name: right_captions(run, held_out, size.asked) for name, run in models.items()}


def packed(clips: Path, half: str, shards: Path) -> Path:
    """Packs the clips of one half, with their captions alone. Returns the folder of the shards."""
    with (clips / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    own = [row for number, row in enumerate(rows) if category_of(1, number) in HALVES[half]]
    table = clips / f"{shards.name}.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "caption"))
        writer.writerows((row["path"], row["caption"]) for row in own)
    build_shards(table, shards, progress=False)
    return shards


def category_of(seed: int, number: int) -> str:
    """Returns the category of a clip that :func:`data_tools.shapes.render_clips` rendered."""
    return draw_scene(Draws(seed, number), SPLIT).category


def train(run: Path, shards: Path, steps: int, lr: float, *options: object) -> None:
    """Trains the demo's model on captions, in a process of its own.

    Raises:
        CalledProcessError: The training failed.
    """
    command = (
        sys.executable, ROOT / "pipelines/train.py", "--config", ROOT / "pipelines/configs/demo.yaml",
        "--ds_config", ROOT / "deepspeed_configs/zero3.json", "--demo", "null", *options,
        "--model.loss.vis_lm", 0, "--model.loss.dec", 0, "--model.loss.dec_every", 1,
        "--data.shards", shards, "--output", run, "--train.max_steps", steps, "--train.lr", lr,
        "--train.global_batch_size", 16, "--train.micro_batch_size", 16,
        "--validation.every", 0, "--checkpoint.every", 100,
    )  # fmt: skip
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def right_captions(run: Path, clips: Path, count: int) -> dict[str, float]:
    """Returns the share of a run's captions of held-out clips that are right, by half."""
    config, framework, _ = load_run(run)
    right, asked = described(Understanding(config, framework), clips, count, seed=2)
    return {half: sum(right[c] for c in own) / sum(asked[c] for c in own) for half, own in HALVES.items()}
