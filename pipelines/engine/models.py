"""The framework of a run: where its weights are, and building it the same way on every rank and at every use."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from data_tools.errors import BadVideo
from data_tools.shards import ShardReader
from data_tools.streaming.mixture import Mixture
from pipelines.config import RunConfig
from pipelines.engine import allocator, distributed, hub
from pipelines.engine.saving.checkpoint import begun
from pipelines.engine.setup import precision
from vtok.assembly import build
from vtok.assembly.architectures import assemble
from vtok.assembly.tiny import write_tiny_models
from vtok.config import ModelConfig
from vtok.framework import VTokFramework
from vtok.weights.materialise import Place, whole

TINY_MODELS = "models"


def prepare_tiny_models(config: RunConfig, output: Path, texts: Iterable[str]) -> None:
    """Write tiny models into the run's folder, once: a run that has begun keeps those it began with."""
    if not begun(output):
        quiet_libraries()
        write_tiny_models(output / TINY_MODELS, texts, config.seed, config.model.mllm.kind)


def dataset_texts(
    reader: ShardReader | Mixture, most: int = 1000, names: Sequence[str] = ("caption", "question", "answer")
) -> Iterator[str]:
    """What the first readable samples say under these names: the tiny tokenizer is trained on all of it."""
    for row in range(min(most, len(reader))):
        try:
            meta = reader.read(row).meta
        except BadVideo:  # training replaces it and says so
            continue
        yield from (meta[name] for name in names if meta.get(name))


def point_to_tiny_models(config: RunConfig) -> None:
    """Let the configuration name the tiny models, relative to the run's folder so that it can be moved."""
    if config.model.mllm.kind == "qwen2.5-vl":
        config.model.mllm.weights = config.model.tokeniser.weights = f"{TINY_MODELS}/qwen"
        return
    config.model.mllm.weights = f"{TINY_MODELS}/llava"
    decoder = config.model.decoder
    decoder.weights = f"{TINY_MODELS}/{decoder.kind}{'_experts' if decoder.expert else ''}"
    if config.model.tokeniser.backbone == "clip" and config.model.tokeniser.weights is None:
        config.model.tokeniser.weights = f"{TINY_MODELS}/clip"


def load_framework(
    config: RunConfig, output: Path, place: Place | None = None, without: Collection[str] = ()
) -> VTokFramework:
    """The framework at step 0; what has no pretrained weights is drawn from ``config.seed``.

    Args:
        place: where the parameters go; whole, in the run's precision, on the CPU if omitted.
        without: frozen parts that get no weights.
    """
    return with_weights(config, assembled(config, output), place, without)


def assembled(config: RunConfig, output: Path) -> VTokFramework:
    """The framework without its pretrained weights, which are on the meta device."""
    quiet_libraries()
    model = inside_run(config.model, output) if config.tiny_models else config.model
    with hub.asked_once(model):
        torch.manual_seed(config.seed)
        return assemble(model)


def with_weights(
    config: RunConfig, framework: VTokFramework, place: Place | None = None, without: Collection[str] = ()
) -> VTokFramework:
    """Give the framework of :func:`assembled` its weights; arguments as :func:`load_framework`."""
    with hub.asked_once(framework.config):
        return build.with_weights(framework, place or whole(precision(config.train)), without)


def load_on_device(config: RunConfig, output: Path) -> VTokFramework:
    """What :func:`load_framework` gives, for inference: whole, on this rank's device.

    Weights go from their files straight to the device, a few MB at a time. Only what no checkpoint holds is drawn in
    host memory first.
    """
    allocator.let_segments_grow()
    device = distributed.device()
    framework = load_framework(config, output, whole(precision(config.train), device))
    return framework.eval().to(device)  # the buffers


def inside_run(model: ModelConfig, output: Path) -> ModelConfig:
    """The model with weights that lie in the run's folder named by their full path."""

    def located(part):
        inside = part.weights is not None and (output / part.weights).exists()
        return replace(part, weights=str(output / part.weights)) if inside else part

    parts = {name: located(getattr(model, name)) for name in ("tokeniser", "mllm", "decoder")}
    return replace(model, **parts)


def quiet_libraries() -> None:
    """No progress bars and no advice from the libraries that load weights."""
    for logging in (transformers_logging, diffusers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()
