"""Describes a run in short lines."""

import math
from pathlib import Path

from pipelines.config import OptimisationConfig, RunConfig
from pipelines.engine.batch_plan import BatchPlan


def number_of_steps(train: OptimisationConfig, samples: int, step: int = 0, consumed: int = 0) -> int:
    """Returns the number of a run's last step.

    Epochs count samples: a run that goes on with another batch takes the steps that the remaining samples need.

    Args:
        train: Settings of the run.
        samples: Samples of the dataset.
        step: Steps that the run has taken.
        consumed: Samples that it has consumed in them.
    """
    if train.max_steps:
        return train.max_steps
    return step + max(0, math.ceil((train.epochs * samples - consumed) / train.global_batch_size))


def done_line(output: Path, step: int, max_steps: int, train: OptimisationConfig) -> str:
    """Says that a run has nothing left to do, and how to make it go on."""
    setting = "train.max_steps" if train.max_steps else "train.epochs"
    return f"{output} is finished: it has taken step {step} of {max_steps}; raise {setting} to train on"


def growth_line(grown: list[tuple[int, str]], samples: int) -> str:
    """Says at which samples of a run its data grew (see ``RunState.grown``)."""
    return (
        f"the data grew after {', '.join(f'{consumed:,}' for consumed, _ in grown)} samples; now they are {samples:,}"
    )


def origin(config: RunConfig) -> str:
    """Describes the weights that a run starts from, in one line."""
    model = config.model
    trained = f"the trained VTok {config.init.weights}, " if config.init.weights else ""
    if config.tiny_models:
        backbone = model.tokeniser.weights
        kept = f"; the backbone is {backbone}" if backbone and not backbone.startswith("models/") else ""
        return f"{trained}tiny models with random weights{kept}"
    parts = {"language model": model.mllm.weights, "backbone": model.tokeniser.weights or "random weights"}
    if model.generates:
        parts["decoder"] = model.decoder.weights
    return trained + ", ".join(f"{name} {weights}" for name, weights in parts.items())


def batch_line(plan: BatchPlan) -> str:
    """Describes how a global batch is split among ranks and micro-steps, in one line."""
    dealt = f"{plan.ranks} ranks x {plan.micro_batch_size} x {plan.accumulation} accumulated"
    return f"{plan.global_batch_size} samples = {dealt}"
