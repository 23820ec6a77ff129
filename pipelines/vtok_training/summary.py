"""Describes a run in short lines."""

import math

from pipelines.config import OptimisationConfig, RunConfig
from pipelines.engine.batch_plan import BatchPlan


def number_of_steps(train: OptimisationConfig, samples: int) -> int:
    """Returns the number of optimiser steps of a whole run on a dataset of ``samples`` samples."""
    return train.max_steps or math.ceil(train.epochs * samples / train.global_batch_size)


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
