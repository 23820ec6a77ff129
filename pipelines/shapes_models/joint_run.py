"""Runs joint training: the commands that a user runs, on two cores of a CPU, stopped and resumed.

Encoder and decoder are frozen, as in the paper.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from data_tools.shards.layout import MANIFEST
from pipelines.cli.config_files import PRESETS
from pipelines.shapes_models.clip import CLIP
from pipelines.shapes_models.config import ModelsConfig
from pipelines.shapes_models.curves import curve_of
from pipelines.shapes_models.llm import LLAVA
from pipelines.shapes_study.config import merged
from vtok.config import ConfigError, DecoderConfig, MLLMConfig, ModelConfig, VTokConfig

TRAIN, PRECOMPUTE = PRESETS.parent / "train.py", PRESETS.parent / "precompute.py"
DS_CONFIG = PRESETS.parents[1] / "deepspeed_configs" / "zero2.json"  # one rank has nothing to shard
SHARDS, LOG = "shards", "log.txt"
STOPPED = 75  # exit code of a run that was stopped and saved
PROMPT_TOKENS = 64  # the longest prompt; longer captions are cut
# With these glibc keeps freed memory. Otherwise new pages took a tenth of a training's time.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}


def model_of(config: ModelsConfig, clip: Path, llava: Path, decoder: Path) -> ModelConfig:
    """Returns the configuration of VTok.

    Args:
        config: The settings.
        clip: Folder of the stage ``clip``.
        llava: Folder of the stage ``llava``.
        decoder: Folder of HunyuanVideo's parts.
    """
    tokeniser = {"weights": str(clip / CLIP), "token_dim": config.clip.vision["hidden_size"], "fps": config.render.fps}
    return ModelConfig(
        tokeniser=VTokConfig(**(tokeniser | config.joint.tokeniser)),
        mllm=MLLMConfig(weights=str(llava / LLAVA), max_motion_tokens=64),
        visual_head=config.joint.visual_head,
        decoder=decoder_of(config, decoder),
        loss=config.joint.loss,
    )


def decoder_of(config: ModelsConfig, weights: Path) -> DecoderConfig:
    """Returns the configuration of the decoder, with its parts in a folder."""
    latents = config.latents
    return DecoderConfig(
        weights=str(weights), fps=latents.fps, height=latents.size, width=latents.size, max_prompt_tokens=PROMPT_TOKENS,
        guidance=1.0, true_guidance=config.guidance,
    )  # fmt: skip


def precompute(folder: Path, config: ModelsConfig, model: ModelConfig, shards: Path) -> None:
    """Writes the clips' features and latents to ``folder/shards``, unless they are there.

    Args:
        folder: Folder of the stage.
        config: The settings.
        model: The model.
        shards: The rendered clips.

    Raises:
        ConfigError: Precomputing failed.
    """
    if (folder / SHARDS / MANIFEST).exists():
        return
    config_file = write_run(
        folder, config, model, {"data": {"shards": str(shards.resolve())}, "train": {"max_steps": 1}}
    )
    options = ["--config", config_file, "--output", folder / SHARDS, "--latents", "--drop-video"]
    if run(folder, PRECOMPUTE, shards, *options):
        raise ConfigError(f"{folder.name}: precomputing failed, see {folder / LOG}")


def train(folder: Path, config: ModelsConfig, model: ModelConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """Trains the model in ``folder/run``, or resumes its training.

    Args:
        folder: Folder of the training.
        config: The settings.
        model: The model.
        settings: Further settings of the run, among them its data and its steps.

    Returns:
        ``curve``: the learning curve.

    Raises:
        ConfigError: The training was stopped and can be resumed, or it failed.
    """
    config_file = write_run(folder, config, model, settings)
    returned = run(folder, TRAIN, "--config", config_file, "--ds_config", DS_CONFIG, "--output", folder / "run",
                   "--resume", "auto")  # fmt: skip
    if returned == STOPPED:
        raise ConfigError(f"{folder.name} was stopped and saved: start the command again to resume it")
    if returned:
        raise ConfigError(f"{folder.name}: training failed, see {folder / LOG}")
    return {"curve": curve_of(log_of(folder), settings["train"]["global_batch_size"])}


def part_of_mixture(folder: Path, name: str, weight: float, **more: Any) -> dict[str, Any]:
    """Returns an entry of ``data.mixture``: the precomputed clips of a folder."""
    return {"shards": str((folder / SHARDS).resolve()), "name": name, "weight": weight} | more


def write_run(folder: Path, config: ModelsConfig, model: ModelConfig, settings: dict[str, Any]) -> Path:
    """Writes the configuration of a run to ``folder/run.yaml`` and returns its path."""
    sections, steps = ("tokeniser", "mllm", "visual_head", "decoder", "loss"), settings["train"]["max_steps"]
    common = {
        "seed": config.later_seed,
        "model": {name: vars(getattr(model, name)) for name in sections},
        "data": {"seconds": config.seconds, "window": "centred", "workers": 1},
        "train": {"schedule": "cosine", "ema_warmup": True},
        "checkpoint": {"every": max(1, steps // 20), "keep": 1},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(merged(common, settings), sort_keys=False))
    return path


def run(folder: Path, program: Path, *arguments: str | Path) -> int:
    """Runs one of the pipeline's programs and returns its exit code; its output is appended to ``folder/log.txt``."""
    with (folder / LOG).open("a") as log:
        return subprocess.run(
            [sys.executable, *map(str, (program, *arguments))],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=KEEP_MEMORY | os.environ,
        ).returncode


def log_of(folder: Path) -> list[dict[str, Any]]:
    """Returns the log of the run: an entry for each step."""
    return [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
