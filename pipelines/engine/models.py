"""Builds the framework of a run from its configuration: the same on every rank, in training and in inference."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from pipelines.engine.saving import kept
from pipelines.engine.saving.folders import begun
from pipelines.engine.saving.slices import Source
from pipelines.engine.setup import precision
from vtok.assembly import build
from vtok.assembly.architectures import assemble
from vtok.assembly.tiny import write_tiny_models
from vtok.config import ModelConfig
from vtok.framework import VTokFramework
from vtok.parts import train_only
from vtok.weights.materialise import EMPTY, Place, Read, whole

TINY_MODELS = "models"


def prepare_tiny_models(config: RunConfig, output: Path, texts: Iterable[str]) -> None:
    """Writes tiny models into the run's folder. A run that has begun, or a later stage, keeps the tiny models it has.

    Args:
        config: Configuration of the run.
        output: Folder of the run.
        texts: Texts that the tiny tokenizer is trained on.
    """
    if not begun(output) and not (output / TINY_MODELS).is_symlink():
        quiet_libraries()
        write_tiny_models(output / TINY_MODELS, texts, config.seed, config.model.mllm.kind)


def dataset_texts(
    reader: ShardReader | Mixture, most: int = 1000, names: Sequence[str] = ("caption", "question", "answer")
) -> Iterator[str]:
    """Yields texts of the first samples, without those that cannot be read.

    Args:
        reader: The data.
        most: Number of rows to read at most.
        names: Names of the texts in a sample.
    """
    for row in range(min(most, len(reader))):
        try:
            meta = reader.read(row).meta
        except BadVideo:  # training replaces the sample and reports it
            continue
        yield from (meta[name] for name in names if meta.get(name))


def point_to_tiny_models(config: RunConfig) -> None:
    """Sets the weights in the configuration to the tiny models.

    The paths are relative to the run's folder, so the folder can be moved.
    """
    if config.model.mllm.kind == "qwen2.5-vl":
        config.model.mllm.weights = config.model.tokeniser.weights = f"{TINY_MODELS}/qwen"
        return
    config.model.mllm.weights = f"{TINY_MODELS}/llava"
    decoder = config.model.decoder
    decoder.weights = f"{TINY_MODELS}/{decoder.kind}{'_experts' if decoder.expert else ''}"
    backbone = config.model.tokeniser.backbone
    if backbone in ("clip", "omnitokenizer") and config.model.tokeniser.weights is None:
        config.model.tokeniser.weights = f"{TINY_MODELS}/{backbone}"
    if config.model.tokeniser.reads_vectors and config.model.tokeniser.codec is None:
        config.model.tokeniser.codec, config.model.tokeniser.codec_config = f"{TINY_MODELS}/motion_codec", None


def load_framework(
    config: RunConfig,
    output: Path,
    checkpoint: Path | None = None,
    place: Place | None = None,
    without: Collection[str] = (),
) -> VTokFramework:
    """Returns the framework at step 0.

    Frozen parameters come from pretrained weights or from what the run keeps; others are drawn from ``config.seed``.

    Args:
        config: Configuration of the run.
        output: Folder of the run.
        checkpoint: The checkpoint that is loaded next; ``None`` if none is.
        place: Places the parameters. By default they are whole, in the run's precision, on the CPU.
        without: Frozen parts that get no weights.

    Raises:
        ConfigError: The run does not hold the frozen weights that the checkpoint was trained with.
    """
    with kept.opened(output, checkpoint) as frozen:
        return with_weights(config, assembled(config, output), place, without, readers(frozen))


def assembled(config: RunConfig, output: Path) -> VTokFramework:
    """Returns the framework without pretrained weights: those parameters are on the meta device.

    Raises:
        ConfigError: A configuration is missing, or the parts do not fit together or cannot train.
    """
    quiet_libraries()
    model = inside_run(config.model, output) if config.tiny_models else config.model
    with hub.asked_once(model):
        torch.manual_seed(config.seed)
        framework = assemble(model)
    train_only(framework, framework.learnable, config.train.parts)
    return framework


def with_weights(
    config: RunConfig,
    framework: VTokFramework,
    place: Place | None = None,
    without: Collection[str] = (),
    trained: Mapping[str, Read] = EMPTY,
) -> VTokFramework:
    """Loads the weights of a framework that :func:`assembled` built.

    Arguments as in :func:`load_framework`; ``trained`` reads parameters that do not come from pretrained weights.
    """
    with hub.asked_once(framework.config):
        return build.with_weights(framework, place or whole(precision(config.train)), without, trained)


def readers(stored: Mapping[str, Source]) -> dict[str, Read]:
    """Returns the functions that read stored parameters."""
    return {name: source.read_into for name, source in stored.items()}


def load_on_device(config: RunConfig, output: Path, checkpoint: Path | None = None) -> VTokFramework:
    """Returns the framework of :func:`load_framework` for inference: whole, on this rank's device.

    Weights go directly from their files to the device, a few MB at a time. Only parameters that no pretrained weights
    cover are drawn in host memory first.
    """
    allocator.let_segments_grow()
    device = distributed.device()
    framework = load_framework(config, output, checkpoint, whole(precision(config.train), device))
    return framework.eval().to(device)  # the buffers


def inside_run(model: ModelConfig, output: Path) -> ModelConfig:
    """Returns the configuration with full paths of those weights that are in the run's folder."""

    def located(part, setting="weights"):
        named = getattr(part, setting)
        inside = named is not None and (output / named).exists()
        return replace(part, **{setting: str(output / named)}) if inside else part

    parts = {name: located(getattr(model, name)) for name in ("tokeniser", "mllm", "decoder")}
    parts["tokeniser"] = located(parts["tokeniser"], "codec")
    return replace(model, **parts)


def quiet_libraries() -> None:
    """Turns off progress bars and warnings of the libraries that load weights."""
    for logging in (transformers_logging, diffusers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()
