"""Joint training of one tokenisation strategy by ``pipelines/train.py``: encoder and decoder frozen, all else equal."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from pipelines.config_files import PRESETS
from pipelines.study.clip import CLIP
from pipelines.study.config import ArmConfig, StudyConfig, merged
from pipelines.study.dit import HUNYUAN
from pipelines.study.llm import LLAVA
from vtok.config import ConfigError, DecoderConfig, MLLMConfig, ModelConfig, VTokConfig

TRAIN = PRESETS.parent / "train.py"
STOPPED = 75
PROMPT_TOKENS = 64  # kept of a caption


def model_of(
    study: StudyConfig, arm: ArmConfig, clip: Path, llm: Path, dit: Path, guidance: float = 1.0
) -> ModelConfig:
    """The model of an arm with the study's own weights; ``guidance`` is classifier-free."""
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
        mllm=MLLMConfig(weights=str(llm / LLAVA), max_motion_tokens=64),
        decoder=DecoderConfig(
            weights=str(dit / HUNYUAN), fps=latents.fps, height=latents.size, width=latents.size,
            max_prompt_tokens=PROMPT_TOKENS, guidance=1.0, true_guidance=guidance,
        ),
    )  # fmt: skip


def matched_hidden_dim(width: int, grid: int, like: int) -> int:
    """Hidden width at which ``g_phi`` for one ``residual_grid`` has the parameters that it has by default for another.

    With features and tokens of width d it has h (n^2 d + 1) + (h + 1) d of them, and h = d by default.
    """
    wanted = width * (like**2 * width + 1) + (width + 1) * width
    return round((wanted - width) / (grid**2 * width + 1 + width))


def train(folder: Path, study: StudyConfig, model: ModelConfig, shards: Path, seed: int) -> dict[str, Any]:
    """Train an arm, or go on with it; its run is ``folder/run``.

    Raises:
        ConfigError: the training was stopped, and can be gone on with, or failed.
    """
    steps = study.train["max_steps"]
    run = {
        "seed": seed,
        "model": {name: vars(getattr(model, name)) for name in ("tokeniser", "mllm", "visual_head", "decoder", "loss")},
        "data": {"shards": str(shards.resolve()), "seconds": study.seconds, "window": "centred", "workers": 1},
        "train": {"schedule": "cosine", "ema_warmup": True} | study.train,
        "checkpoint": {"every": max(1, steps // 20), "keep": 1},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
    command = [sys.executable, TRAIN, "--config", folder / "run.yaml", "--output", folder / "run", "--resume", "auto"]
    with (folder / "train.txt").open("a") as log:
        ended = subprocess.run(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT)
    if ended.returncode == STOPPED:
        raise ConfigError(f"{folder.name} was stopped and saved: start the study again to go on with it")
    if ended.returncode:
        raise ConfigError(f"{folder.name}: training failed, see {folder / 'train.txt'}")
    lines = log_of(folder)
    tenth = max(1, len(lines) // 10)
    figures = {}
    for loss in ("loss_under", "loss_vis_lm", "loss_dec"):
        values = [line[loss] for line in lines]
        figures |= {f"first_{loss}": sum(values[:tenth]) / tenth, f"last_{loss}": sum(values[-tenth:]) / tenth}
    return figures


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The run's log, a line a step."""
    return [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
