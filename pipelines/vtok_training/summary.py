"""Describes a run in short lines."""

from data_tools.streaming.mixture import Mixture
from pipelines.config import MixtureConfig, RunConfig
from pipelines.engine.batch_plan import BatchPlan


def growth_line(grown: list[tuple[int, str]], samples: int) -> str:
    """Says at which samples of a run its data grew (see ``RunState.grown``)."""
    return (
        f"the data grew after {', '.join(f'{consumed:,}' for consumed, _ in grown)} samples; now they are {samples:,}"
    )


def mixture_lines(sources: list[MixtureConfig], reader: Mixture) -> list[str]:
    """Describes the datasets of a mixture: the share of the run's samples, and what is special about each."""
    lines = []
    for source, weight in zip(sources, reader.weights):
        told = [f"{weight / sum(reader.weights):.1%} of the samples", f"losses {', '.join(source.losses)}"]
        if source.captions:
            shares = {kind: share for kind, share in vars(source.captions).items() if share}
            told.append("captions " + ", ".join(f"{kind} {s / sum(shares.values()):.0%}" for kind, s in shares.items()))
        if source.prompts:
            told.append(f"{len(source.prompts)} prompts of its own")
        lines.append(f"dataset {source.title}: {'; '.join(told)}")
    return lines


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
    shared_by = plan.sequence_parallel
    ranks = f"{plan.ranks} ranks" if shared_by == 1 else f"{plan.data_ranks} groups of {shared_by} ranks"
    dealt = f"{ranks} x {plan.micro_batch_size} x {plan.accumulation} accumulated"
    return f"{plan.global_batch_size} samples = {dealt}"
