"""Trains one tokenisation strategy, an arm, with ``pipelines/train.py``.

Encoder and decoder are frozen. Arms differ in the tokeniser alone.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from data_tools.shards.layout import MANIFEST
from pipelines.cli.config_files import PRESETS
from pipelines.shapes_study.clip import CLIP
from pipelines.shapes_study.config import ArmConfig, StudyConfig, merged
from pipelines.shapes_study.curves import curve_of
from pipelines.shapes_study.llm import LLAVA
from vtok.config import ConfigError, DecoderConfig, MLLMConfig, ModelConfig, VTokConfig
from vtok.motion_encoder import QueryMotionEncoder

TRAIN, PRECOMPUTE = PRESETS.parent / "train.py", PRESETS.parent / "precompute.py"
DS_CONFIG = PRESETS.parents[1] / "deepspeed_configs" / "zero2.json"  # one rank has nothing to shard
SHARDS, LOG = "shards", "log.txt"
STOPPED = 75  # exit code of a run that was stopped and saved
PROMPT_TOKENS = 64  # the longest prompt; longer captions are cut
# With these glibc keeps freed memory. Otherwise new pages took a tenth of a training's time.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}


def model_of(
    study: StudyConfig, arm: ArmConfig, clip: Path, llava: Path, decoder: Path, guidance: float = 1.0
) -> ModelConfig:
    """Returns the configuration of an arm's model, with the study's own weights.

    Args:
        study: The study.
        arm: The arm.
        clip: Folder of the stage ``clip``.
        llava: Folder of the stage ``llava``.
        decoder: Folder of HunyuanVideo's parts.
        guidance: Scale of classifier-free guidance; 1 is none.
    """
    tokeniser = merged(study.tokeniser, arm.tokeniser)
    latents, width = study.latents, study.clip.vision["hidden_size"]
    if arm.g_phi_of_grid:
        grid = tokeniser.get("residual_grid", 1)
        tokeniser["motion_hidden_dim"] = matched_hidden_dim(width, grid, arm.g_phi_of_grid)
    return ModelConfig(
        tokeniser=VTokConfig(
            **{"weights": str(clip / CLIP), "token_dim": width, "fps": study.render.fps}
            | tokeniser
        ),
        mllm=MLLMConfig(weights=str(llava / LLAVA), max_motion_tokens=64),
        decoder=DecoderConfig(
            weights=str(decoder), fps=latents.fps, height=latents.size, width=latents.size,
            max_prompt_tokens=PROMPT_TOKENS, guidance=1.0, true_guidance=guidance,
        ),
        loss=study.loss,
    )  # fmt: skip


def matched_hidden_dim(width: int, grid: int, like: int, pooling: str = "flatten") -> int:
    """Returns a hidden width for ``g_phi`` that matches its number of parameters with another ``residual_grid``.

    With features and tokens of width d, hidden width h and residual grid n, ``g_phi`` has
    h (n^2 d + 1) + (h + 1) d parameters. By default h = d. With a query it has h^2 + (3d + 4) h + (n^2 + 1) d.

    Args:
        width: d.
        grid: n of the ``g_phi`` to build.
        like: n of the ``g_phi`` to match, which has the default hidden width and no query.
        pooling: ``residual_pooling`` of the ``g_phi`` to build.
    """
    wanted = width * (like**2 * width + 1) + (width + 1) * width
    if pooling == "query":
        half = (3 * width + 4) / 2
        heads = QueryMotionEncoder.HEADS
        return heads * round((math.sqrt(half**2 + wanted - (grid**2 + 1) * width) - half) / heads)
    return round((wanted - width) / (grid**2 * width + 1 + width))


def precompute(folder: Path, study: StudyConfig, model: ModelConfig, shards: Path) -> dict[str, Any]:
    """Writes the clips' features and latents for an arm to ``folder/shards``; all seeds of the arm read them.

    Args:
        folder: Folder of the stage.
        study: The study.
        model: The arm's model.
        shards: The rendered clips.

    Returns:
        No figures.

    Raises:
        ConfigError: Precomputing failed.
    """
    if (folder / SHARDS / MANIFEST).exists():
        return {}  # an earlier start finished the shards but was stopped before it marked the stage as done
    config = write_run(folder, study, model, shards, study.seed)
    options = ["--config", config, "--output", folder / SHARDS, "--latents", "--drop-video"]
    if run(folder, PRECOMPUTE, shards, *options):
        raise ConfigError(f"{folder.name}: precomputing failed, see {folder / LOG}")
    return {}


def train(folder: Path, study: StudyConfig, model: ModelConfig, shards: Path, seed: int) -> dict[str, Any]:
    """Trains an arm in ``folder/run``, or resumes its training.

    Args:
        folder: Folder of the stage.
        study: The study.
        model: The arm's model.
        shards: The arm's precomputed features and latents.
        seed: Seed of the run.

    Returns:
        ``curve``: the learning curve.

    Raises:
        ConfigError: The training was stopped and can be resumed, or it failed.
    """
    config = write_run(folder, study, model, shards, seed)
    returned = run(folder, TRAIN, "--config", config, "--ds_config", DS_CONFIG, "--output", folder / "run",
                   "--resume", "auto")  # fmt: skip
    if returned == STOPPED:
        raise ConfigError(f"{folder.name} was stopped and saved: start the study again to resume it")
    if returned:
        raise ConfigError(f"{folder.name}: training failed, see {folder / LOG}")
    return {"curve": curve_of(log_of(folder), study.train["global_batch_size"])}


def write_run(folder: Path, study: StudyConfig, model: ModelConfig, shards: Path, seed: int) -> Path:
    """Writes the configuration of an arm's run to ``folder/run.yaml`` and returns its path."""
    sections = ("tokeniser", "mllm", "visual_head", "decoder", "loss")
    config = {
        "seed": seed,
        "model": {name: vars(getattr(model, name)) for name in sections},
        "data": {"shards": str(shards.resolve()), "seconds": study.seconds, "window": "centred", "workers": 1},
        "train": {"schedule": "cosine", "ema_warmup": True} | study.train,
        "checkpoint": {"every": max(1, study.train["max_steps"] // 20), "keep": 1},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
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
