"""The model card of an export: recipe, facts about the data, figures, and the licences of all parts."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from data_tools.errors import DataError
from data_tools.shards import ShardReader
from pipelines.cli.config_files import plain
from pipelines.config import RunConfig
from pipelines.engine.saving.checkpoint import RunState
from vtok.config import ModelConfig
from vtok.framework import LOSSES
from vtok.weights.shipped import PREFIX

# Licences of published weights, by the beginning of their hub id, as their own cards name them.
LICENCES = {
    PREFIX: "Apache-2.0",
    "llava-hf/llama3-llava-next-8b-hf": "Llama 3 Community License",
    "openai/clip-vit-": "MIT",
    "hunyuanvideo-community/HunyuanVideo": "Tencent Hunyuan Community License",
    "Wan-AI/": "Apache-2.0",
    "Qwen/Qwen2.5-VL-7B-Instruct": "Apache-2.0",
}
UNKNOWN = "see its own card"
# What the figures of a log were measured on.
MEASURED_ON = {"log": "training", "validation": "held-out clips"}


def model_card(
    name: str, config: RunConfig, state: RunState, ema: bool, figures: Mapping[str, Any], data: list[str]
) -> str:
    """Writes the card, in Markdown with the hub's header.

    Args:
        name: Hub id of the model.
        config: The run's configuration.
        state: The run's state at the exported step.
        ema: Whether the weights are the average of the run's.
        figures: Results of :func:`figures_of`.
        data: Lines about the data.
    """
    parts = without_folders(parts_of(config.model))
    bases = [weights for weights in parts.values() if not weights.startswith(PREFIX)]
    header = {"library_name": "vtok", "pipeline_tag": "video-text-to-text", "tags": ["vtok", "video"]}
    licence = {"license": "apache-2.0"} if {licence_of(w) for w in parts.values()} == {"Apache-2.0"} else {
        "license": "other", "license_name": "those-of-its-parts", "license_link": "#licences",
    }  # fmt: skip
    header |= licence | ({"base_model": sorted(set(bases))} if bases else {})
    chain = [f"| {part} | `{weights}` | {licence_of(weights)} |" for part, weights in parts.items()]
    which = "the average (EMA) of the weights" if ema else "the weights"
    rows = [(source, key, value) for source, line in figures.items() for key, value in line.items()]
    measured = [f"| {source} | {key} | {value:.4g} |" for source, key, value in rows]
    recipe = yaml.safe_dump(without_folders(plain(asdict(config))), sort_keys=False).strip()
    lines = [
        "---", yaml.safe_dump(header, sort_keys=False).strip(), "---", "", f"# {name}", "",
        "A VTok (arXiv 2602.04202): a language model that understands and generates video on S + T visual tokens. "
        f"These are {which} after step {state.step} ({state.consumed_samples:,} samples).", "",
        "```python", "from vtok.pipeline import VTokPipeline", "",
        f'pipeline = VTokPipeline.from_pretrained("{name}")', "```", "",
        "## Data", "", *[f"- {line}" for line in data], "",
        "## Figures", "", "| measured | figure | value |", "|---|---|---|", *measured, "",
        "## Licences", "",
        "The language model was trained further from the first of these. The others are frozen. This repository holds "
        "no copy of what is frozen: the settings name it. Each part keeps its licence, and so do the data.", "",
        "| part | weights | licence |", "|---|---|---|", *chain, "| code | vtok | Apache-2.0 |", "",
        "## Recipe", "", "```yaml", recipe, "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def without_folders(value: Any) -> Any:
    """Returns settings in which paths of this machine are their last names only."""
    if isinstance(value, Mapping):
        return {name: without_folders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def parts_of(model: ModelConfig) -> dict[str, str]:
    """Returns the names of the weights that a model is made of, by part."""
    parts = {"language model": model.mllm.weights, "backbone": model.tokeniser.weights or "random weights"}
    parts |= {"motion codec": model.tokeniser.codec} if model.tokeniser.codec else {}
    return parts | ({"decoder": model.decoder.weights} if model.generates else {})


def licence_of(weights: str) -> str:
    """Returns the licence of published weights, as far as it is known."""
    return next((licence for start, licence in LICENCES.items() if weights.startswith(start)), UNKNOWN)


def figures_of(output: Path, step: int) -> dict[str, dict[str, float]]:
    """Returns the losses that a run logged at a step, and those of its last validation up to then."""
    found = {}
    for name, label in MEASURED_ON.items():
        path = output / f"{name}.jsonl"
        text = path.read_text() if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]  # not cut by a kill
        last = max((line for line in lines if line["step"] <= step), key=lambda line: line["step"], default={})
        if losses := {key: last[key] for key in LOSSES if isinstance(last.get(key), float)}:
            found[f"{label}, step {last['step']}"] = losses
    return found


def data_lines(config: RunConfig, output: Path, state: RunState) -> list[str]:
    """Describes a run's data: what the state says, and what the shards say if they are still there."""
    lines = [f"manifest {hash_[:12]} up to sample {consumed:,}; then the data grew" for consumed, hash_ in state.grown]
    lines.append(f"manifest {state.manifest_hash[:12]}, seed {state.seed}, {state.consumed_samples:,} samples in all")
    data = config.data
    places = [data.shards] if data.shards else [part.shards for part in data.mixture or []]
    if data.root:  # packed beside the output
        places = [path for path in output.parent.glob(f"shards-{Path(data.root).name}-*") if has_hash(path, state)]
    for place in places:
        try:
            reader = ShardReader(place)
        except (DataError, OSError):
            lines.append(f"{Path(str(place)).name}: no longer there")
            continue
        hours = float(reader.rows["duration"].sum()) / 3600
        words = float(reader.rows["words"].mean())
        lines.append(f"{len(reader):,} clips, {hours:.3g} hours, {words:.1f} words a caption")
    return lines


def has_hash(folder: Path, state: RunState) -> bool:
    """Whether a folder of shards is the data that a run has read."""
    try:
        return ShardReader(folder).manifest_hash == state.manifest_hash
    except (DataError, OSError):
        return False
