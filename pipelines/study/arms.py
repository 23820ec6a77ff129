"""Joint training of one tokenisation strategy by ``pipelines/train.py``: encoder and decoder frozen, all else equal."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from data_tools.shards.layout import MANIFEST
from pipelines.config_files import PRESETS
from pipelines.study.clip import CLIP
from pipelines.study.config import ArmConfig, StudyConfig, merged
from pipelines.study.curves import curve_of
from pipelines.study.llm import LLAVA
from vtok.config import ConfigError, DecoderConfig, MLLMConfig, ModelConfig, VTokConfig

TRAIN, PRECOMPUTE = PRESETS.parent / "train.py", PRESETS.parent / "precompute.py"
DS_CONFIG = PRESETS.parents[1] / "deepspeed_configs" / "zero2.json"  # one rank has nothing to shard
SHARDS, LOG = "shards", "log.txt"
STOPPED = 75
PROMPT_TOKENS = 64  # kept of a caption
# glibc keeps what is freed instead of handing it back: a tenth of a training's time went into new pages otherwise.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}


def model_of(
    study: StudyConfig, arm: ArmConfig, clip: Path, llava: Path, decoder: Path, guidance: float = 1.0
) -> ModelConfig:
    """The model of an arm with the study's own weights.

    Args:
        clip, llava: folders of these stages.
        decoder: folder of HunyuanVideo's parts.
        guidance: classifier-free.
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


def matched_hidden_dim(width: int, grid: int, like: int) -> int:
    """Hidden width at which ``g_phi`` for one ``residual_grid`` has the parameters that it has by default for another.

    With features and tokens of width d it has h (n^2 d + 1) + (h + 1) d of them, and h = d by default.
    """
    wanted = width * (like**2 * width + 1) + (width + 1) * width
    return round((wanted - width) / (grid**2 * width + 1 + width))


def precompute(folder: Path, study: StudyConfig, model: ModelConfig, shards: Path) -> dict[str, Any]:
    """``folder/shards``: the clips' features and latents as the arm takes them, which its seeds have in common.

    Raises:
        ConfigError: it failed.
    """
    if (folder / SHARDS / MANIFEST).exists():
        return {}  # finished, but stopped before that was noted
    config = write_run(folder, study, model, shards, study.seed)
    options = ["--config", config, "--output", folder / SHARDS, "--latents", "--drop-video"]
    if run(folder, PRECOMPUTE, shards, *options):
        raise ConfigError(f"{folder.name}: precomputing failed, see {folder / LOG}")
    return {}


def train(folder: Path, study: StudyConfig, model: ModelConfig, shards: Path, seed: int) -> dict[str, Any]:
    """Train an arm, or go on with it; its run is ``folder/run``.

    Raises:
        ConfigError: the training was stopped, and can be gone on with, or failed.
    """
    config = write_run(folder, study, model, shards, seed)
    returned = run(folder, TRAIN, "--config", config, "--ds_config", DS_CONFIG, "--output", folder / "run",
                   "--resume", "auto")  # fmt: skip
    if returned == STOPPED:
        raise ConfigError(f"{folder.name} was stopped and saved: start the study again to go on with it")
    if returned:
        raise ConfigError(f"{folder.name}: training failed, see {folder / LOG}")
    return {"curve": curve_of(log_of(folder), study.train["global_batch_size"])}


def write_run(folder: Path, study: StudyConfig, model: ModelConfig, shards: Path, seed: int) -> Path:
    """The configuration of an arm's run."""
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
    """Exit code of one of the pipeline's programs; what it says goes to ``folder/log.txt``."""
    with (folder / LOG).open("a") as log:
        return subprocess.run(
            [sys.executable, *map(str, (program, *arguments))],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=KEEP_MEMORY | os.environ,
        ).returncode


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The run's log, a line a step."""
    return [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
