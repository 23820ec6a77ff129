"""``evaluate.py all``: the commands that bring out the paper's tables on rendered clips, one after another.

Table 1: do generated videos keep to their prompts? The true clips are the judge's ceiling.
Table 3: does the model see what a video shows? Asked openly, as our small models were trained, and with letters.
Table 2 is VBench's, which needs an environment and weights of its own: ``evaluate.py vbench``.
"""

import argparse
from pathlib import Path

from data_tools.items import read_items, write_items
from data_tools.shapes import TV_ALIGN, render_clips

# The small image model as it was published, on the tokens of each strategy, without training.
UNTRAINED = """\
model:
  tokeniser: {{strategy: {strategy}, {more}weights: shapes/clip, token_dim: 96, spatial_grid_size: 4, fps: 8,
              motion_tokens_per_second: 4}}
  mllm: {{weights: shapes/llava-next, max_motion_tokens: 64}}
  loss: {{vis_lm: 0, dec: 0}}
  decoder: {{weights: shapes/hunyuan-video, height: 32, width: 32}}
data: {{seconds: 3.0}}
train: {{max_steps: 1}}
"""
STRATEGIES = {"vtok": "", "frames": "sampled_frames: 4, ", "training_free": ""}

SEED = 20_260_204  # of scenes that no shipped model was trained on
CATEGORIES = 9  # of the shapes world; clips cycle through them


def prepare(a: argparse.Namespace) -> None:
    """Renders the clips with their questions, unless they are there, and writes the untrained configurations.

    Args:
        a: The arguments that ``evaluate.py`` parsed.
    """
    clips = a.output / "clips"
    if not (clips / "captions.csv").exists():
        render_clips(clips, CATEGORIES * a.per_category, SEED, split="train")
    aligned = [item for item in read_items(clips / "items.jsonl") if item.category in TV_ALIGN]
    write_items(aligned, a.output / "tv_align.jsonl")
    for strategy, more in STRATEGIES.items():
        (a.output / f"{strategy}.yaml").write_text(UNTRAINED.format(strategy=strategy, more=more))


def commands(a: argparse.Namespace) -> list[list[str]]:
    """Returns the arguments of each command.

    Args:
        a: The arguments that ``evaluate.py`` parsed.
    """
    out, model = a.output, ["--checkpoint", str(a.checkpoint)]
    clips, items = out / "clips", out / "tv_align.jsonl"
    asked = ["understanding", "--items", str(clips / "items.jsonl"), "--videos", str(clips)]
    untrained = {
        out / f"table3_untrained_{strategy}": ["--config", str(out / f"{strategy}.yaml")] for strategy in STRATEGIES
    }
    openly = {out / "table3_open": model} | untrained
    judged = ["tv-align", "--items", str(items)]
    found = [
        *([*asked, *which, "--hide_options", "--output", str(output)] for output, which in openly.items()),
        [*asked, *model, "--output", str(out / "table3_lettered")],
        [*judged, "--videos", str(clips), "--output", str(out / "table1_true_clips")],
        [*judged, *model, "--steps", str(a.steps), "--batch_size", "8", "--output", str(out / "table1_generated")],
        compared(out / "table1", out / "table1_generated", out / "table1_true_clips"),
        compared(out / "table3", *openly, out / "table3_lettered"),
    ]
    shown = ("table1_generated", "table1_true_clips", "table3_open", "table3_lettered")
    return found + [["page", str(out / name), "--output", str(out / f"{name}.html")] for name in shown]


def compared(output: Path, *results: Path) -> list[str]:
    """Returns the arguments that compare evaluations."""
    return ["compare", *map(str, results), "--output", str(output)]
