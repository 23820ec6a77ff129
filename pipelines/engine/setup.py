"""One DeepSpeed engine from the framework, the run's configuration and the user's JSON."""

import json
import math
import os
from pathlib import Path

import deepspeed
import torch
from torch import nn

from pipelines.config import TrainConfig
from pipelines.engine.batch_plan import BatchPlan
from vtok.config import ConfigError
from vtok.framework import VTokFramework

Engine = deepspeed.DeepSpeedEngine

# What the run computes, and the JSON therefore leaves out.
COMPUTED = "the run computes it from the YAML and the number of ranks: remove it from the JSON"


def precision(train: TrainConfig) -> torch.dtype:
    """bf16 on GPUs and fp32 on a CPU, unless the configuration says otherwise."""
    if train.precision == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return torch.bfloat16 if train.precision == "bf16" else torch.float32


def deepspeed_config(path: Path, train: TrainConfig, batch: BatchPlan) -> dict:
    """The user's JSON completed with what the run computes.

    Raises:
        ConfigError: no such file, not JSON, or a value in it disagrees with a computed one.
    """
    try:
        config = json.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"cannot read --ds_config {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"--ds_config {path} is not valid JSON: {error}") from error
    computed = {
        "train_batch_size": batch.global_batch_size,
        "train_micro_batch_size_per_gpu": batch.micro_batch_size,
        "gradient_accumulation_steps": batch.accumulation,
        "gradient_clipping": train.max_grad_norm,
        "bf16": {"enabled": precision(train) == torch.bfloat16},
    }
    for key, value in computed.items():
        if key in config and config[key] not in (value, "auto"):
            raise ConfigError(f"{path}: {key} is {config[key]}, but this run needs {value}; {COMPUTED}")
    for key in ("optimizer", "scheduler", "fp16"):
        if key in config:
            raise ConfigError(f"{path}: {key} is not read from here; {COMPUTED}")
    return config | computed


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Trainable parameters: matrices are decayed; biases, norms and embeddings are not."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    trainable = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trainable if p.ndim >= 2 and id(p) not in embeddings]
    others = [p for p in trainable if p.ndim < 2 or id(p) in embeddings]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def learning_rate(step: int, train: TrainConfig, max_steps: int) -> float:
    """Learning rate of optimiser step ``step`` (from 1): linear warm-up, then constant or cosine to a tenth."""
    if step <= train.warmup_steps:
        return train.lr * step / train.warmup_steps
    if train.schedule == "constant":
        return train.lr
    progress = (step - train.warmup_steps) / max(1, max_steps - train.warmup_steps)
    return train.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast parameters only: rotary frequencies and feature statistics stay fp32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def build_engine(framework: VTokFramework, ds_config: dict, train: TrainConfig) -> Engine:
    """Shard the framework. Only trainable parameters reach the optimiser; frozen ones are shards and nothing more."""
    offloaded = ds_config.get("zero_optimization", {}).get("offload_optimizer", {}).get("device", "none") != "none"
    kind = deepspeed.ops.adam.DeepSpeedCPUAdam if offloaded else torch.optim.AdamW
    groups = parameter_groups(framework, train.weight_decay)
    optimiser = kind(groups, lr=train.lr, betas=train.betas, eps=train.eps)
    cast_parameters(framework, precision(train))
    engine, *_ = deepspeed.initialize(model=framework.train(), optimizer=optimiser, config=ds_config)
    return engine


def repeat_to_the_last_digit() -> None:
    """Only operations whose results do not depend on the timing of a GPU's threads; call it before the GPU is used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def set_learning_rate(engine: Engine, lr: float) -> None:
    for group in engine.optimizer.param_groups:
        group["lr"] = lr
