"""Writes the models to ship: bf16 safetensors in the layouts of the published models, each with its card."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipelines.shapes_models.clip import CLIP
from pipelines.shapes_models.decoder import HUNYUAN
from pipelines.shapes_models.joint import VTOK
from pipelines.shapes_models.judged import DETAILED, SHORT
from pipelines.shapes_models.llm import LLAVA
from pipelines.shapes_study.stages import Done
from vtok.assembly.pretrained import CONFIG
from vtok.config import require
from vtok.weights.shipped import PREFIX

MODELS = {
    "clip": ("clip", CLIP),
    "llava-next": ("llava", LLAVA),
    "hunyuan-video": ("decoder", HUNYUAN),
    "vtok": ("joint", VTOK),
}
RESTS_ON = {
    "clip": ("clip",),
    "llava-next": ("clip", "llm", "llava", "pictures"),
    "hunyuan-video": ("clip", "llm", "llava", "tower", "clips", "decoder", "judged"),
    "vtok": ("judged", "rendered", "joint"),
}
NOT_TOLD = (SHORT, DETAILED, "ceilings", "gate", "probe", "items", "curve")
JOINT = """It starts from the other three and is trained jointly, as in the paper: encoder and decoder frozen.
Then it trains on L_under alone, above all on clips that are hard to describe, and at last on all losses again and on
visual tokens that it sampled itself.
`descriptions_right` below is the share of captions of held-out clips that tell the number, colours and shapes of all
things and what each of them does."""
LARGEST = 16_000_000  # bytes of all models together


def make(folder: Path, stages: dict[str, Done]) -> dict[str, Any]:
    """Writes ``folder/clip``, ``folder/llava-next``, ``folder/hunyuan-video`` and ``folder/vtok``.

    Args:
        folder: Folder of the stage.
        stages: All stages, by name.

    Returns:
        The models' size in bytes.

    Raises:
        ConfigError: They are larger than ``LARGEST``.
    """
    for model, (name, inside) in MODELS.items():
        shutil.copytree(stages[name].folder / inside, folder / model, dirs_exist_ok=True)
        (folder / model / "README.md").write_text(card(model, {name: stages[name].figures for name in RESTS_ON[model]}))
    name_shipped_parts(folder / "vtok" / CONFIG)
    for path in folder.rglob("*.safetensors"):
        halve(path)
    for path in folder.rglob("config.json"):
        forget_place(path)
    size = sum(path.stat().st_size for path in folder.rglob("*.*") if path.is_file())
    require(size <= LARGEST, f"{folder} has {size} bytes, more than the {LARGEST} that are to be shipped")
    return {"bytes": size}


def name_shipped_parts(path: Path) -> None:
    """Names the frozen parts of an export as they are shipped."""
    settings = json.loads(path.read_text())
    settings["tokeniser"]["weights"], settings["decoder"]["weights"] = f"{PREFIX}clip", f"{PREFIX}hunyuan-video"
    path.write_text(json.dumps(settings, indent=2))


def forget_place(path: Path) -> None:
    """Removes from a configuration the folder that the model was once loaded from."""
    settings = json.loads(path.read_text())
    if settings.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(settings, indent=2))


def halve(path: Path) -> None:
    """Stores the floats of a file as bf16."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, metadata)


def card(model: str, figures: dict[str, dict[str, Any]]) -> str:
    """Returns a model's card: data, recipe, cost and figures.

    Args:
        model: Name of the model.
        figures: Figures of the stages that the model depends on, by name.
    """
    hours = sum(told["seconds"] for told in figures.values()) / 3600
    text = [
        f"# shapes/{model}",
        "Trained on rendered clips of simple shapes (`data_tools/shapes`), from nothing, by "
        "`python pipelines/train_shapes_models.py --profile cpu --output DIR`. Weights are bf16. Its stages "
        f"({', '.join(figures)}) took {hours:.1f} hours on two cores of a CPU.",
    ]
    if "joint" in figures:
        text.append(JOINT)
    if "judged" in figures:
        text.append(judge_table(figures["judged"], figures.get("joint")))
    rest = {
        name: {what: value for what, value in told.items() if what not in NOT_TOLD} for name, told in figures.items()
    }
    text.append(f"What the stages measured, and their seconds:\n\n```json\n{json.dumps(rest, indent=1)}\n```")
    return "\n\n".join(text) + "\n"


def judge_table(judged: dict[str, Any], joint: dict[str, Any] | None = None) -> str:
    """Returns a table of what the pixel judge gets right in each category, in percent.

    Args:
        judged: Figures of the decoder.
        joint: Figures of VTok, for its own column.
    """
    columns = told_by("decoder", judged) | judged["ceilings"]
    if joint:
        columns = told_by("VTok", joint) | columns
    rows = [
        "The pixel judge's questions about videos of new scenes of the training distribution, made from text alone, "
        "in % right (of so many). Detailed captions also tell the size and the first place of each thing.",
        "",
        f"| category | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for lines in zip(*columns.values()):
        shares = " | ".join(f"{100 * line['right'] / line['asked']:.1f} ({line['asked']})" for line in lines)
        rows.append(f"| {lines[0]['name']} | {shares} |")
    return "\n".join(rows)


def told_by(model: str, figures: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Names the lines of a model's videos, of detailed and of short captions."""
    return {f"{model}, {kind} captions": figures[kind] for kind in (DETAILED, SHORT)}
