"""The weights of a trained VTok that a new run starts from (``init_from``).

The weights of all that can train come along, whether or not this run trains them, and the statistics of the features.
Step, optimiser, order and data begin anew. Each rank reads its own slices.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pipelines.cli.parsing import load_config
from pipelines.cli.steps import run_of
from pipelines.config import InitConfig
from pipelines.engine.models import inside_run
from pipelines.engine.saving import checkpoint, choosing, kept
from pipelines.engine.saving.slices import SliceReader, Slices, Source
from vtok.adapter_names import is_adapter, plain_name
from vtok.assembly.adapters import WEIGHTS as ADAPTERS
from vtok.assembly.adapters import stored_adapters
from vtok.assembly.pretrained import CONFIG, WEIGHTS, read_config
from vtok.config import ConfigError, MLLMConfig
from vtok.framework import VTokFramework
from vtok.mllm import mllm_part
from vtok.weights import Location, Part, open_safetensors, shape_of

STATISTICS = "tokeniser.feature_scale."  # what the statistics are called in an export
SETTING = "init.weights"
NAMED = 5  # parameters that do not fit, in an error


@dataclass
class Trained:
    """What a trained VTok stores. Its parameters have the names of a model without adapters.

    Attributes:
        names: Names of its parameters, as far as they are known without a framework.
        find: Finds a parameter by its name; ``None`` if it is not stored.
        statistics: Mean and deviation of the features, by the names of ``VTokFramework.measured``.
    """

    names: set[str]
    find: Callable[[str], Source | None]
    statistics: dict[str, Tensor]

    def fitting(self, framework: VTokFramework) -> tuple[dict[str, Source], list[str]]:
        """Matches what is stored with the parameters that can train. Adapters are new if none are stored.

        Returns:
            Those that fit, by name; and a line for each parameter that does not fit, is missing here or is missing
            there.
        """
        found: dict[str, Source] = {}
        unlike, places = [], set()
        adapted = any(map(is_adapter, self.names))
        for name, parameter in framework.named_parameters():
            if name not in framework.learnable or (is_adapter(name) and not adapted):
                continue
            places.add(plain_name(name))
            shape, stored = list(shape_of(parameter)), self.find(plain_name(name))
            if stored is None:
                unlike.append(f"{name} {shape}: not stored there")
            elif list(stored.shape) != shape:
                unlike.append(f"{name} {shape}: stored there as {list(stored.shape)}")
            else:
                found[name] = stored
        return found, unlike + [f"{name}: has no place in this model" for name in sorted(self.names - places)]


@contextmanager
def opened(init: InitConfig, framework: VTokFramework) -> Iterator[tuple[Mapping[str, Source], dict[str, Tensor]]]:
    """Opens what a run starts from. Within, it can be read.

    Args:
        init: The settings.
        framework: The new run's framework, with or without weights.

    Yields:
        The stored parameters, by name, and the statistics of the features that fit.

    Raises:
        ConfigError: There is no such model, or, with ``strict``, something does not fit.
    """
    if init.weights is None:
        yield {}, {}
        return
    with stored_in(init.weights, init.ema) as trained:
        fitting, unlike = trained.fitting(framework)
        if unlike and init.strict:
            more = f"; and {len(unlike) - NAMED} more" if len(unlike) > NAMED else ""
            raise ConfigError(
                f"{SETTING}: {init.weights} does not fit this model (--init_strict false takes what fits): "
                f"{'; '.join(unlike[:NAMED])}{more}"
            )
        for line in unlike:
            print(f"{SETTING}: {line}", flush=True)
        own = dict(framework.measured.named_buffers())
        kept = {name: t for name, t in trained.statistics.items() if name in own and own[name].shape == t.shape}
        yield fitting, kept if len(kept) == len(own) and not init.measure else {}


@contextmanager
def stored_in(place: str, ema: bool) -> Iterator[Trained]:
    """Opens a run's folder, one of its checkpoints, or an export: a folder, a shipped model or a hub id."""
    folder = Path(place).expanduser()
    if (run_of(folder) / "config.yaml").is_file():
        run, found = choosing.located(folder)
        with SliceReader(found) as reader, kept.opened(run, found) as frozen:
            yield in_checkpoint(run, found, reader, frozen, ema)
    else:
        yield in_export(place, ema)


def in_checkpoint(run: Path, folder: Path, reader: SliceReader, frozen: Mapping[str, Slices], ema: bool) -> Trained:
    """Returns what a checkpoint of a run holds, and what the run did not train.

    Args:
        run: Folder of the run.
        folder: The checkpoint.
        reader: Reads it.
        frozen: What the run has kept (see :mod:`pipelines.engine.saving.kept`).
        ema: Whether to take the average.
    """
    shapes = checkpoint.read_state(folder).shapes
    kind = checkpoint.AVERAGE if ema else checkpoint.WEIGHTS
    if not all(f"{kind}/{name}" in reader for name in shapes):
        raise ConfigError(f"{SETTING}: {folder} holds no average of the weights: leave out --init.ema")
    trained = {name: Slices(reader, f"{kind}/{name}", tuple(shape)) for name, shape in shapes.items()}
    own = {plain_name(name): stored for name, stored in {**frozen, **trained}.items()}
    config = load_config(run / "config.yaml")
    pretrained = language_model(inside_run(config.model, run).mllm)

    def find(name: str) -> Source | None:
        return own.get(name) or pretrained(name)

    return Trained(set(own), find, checkpoint.stored_statistics(folder))


def in_export(place: str, ema: bool) -> Trained:
    """Returns what an export holds: our own parameters, and the language model in its published layout."""
    location = Location("trained VTok", SETTING, place)
    path, own_path = location.find(CONFIG), location.find(WEIGHTS)
    if path is None or own_path is None:
        raise location.missing(CONFIG if path is None else WEIGHTS)
    if ema:
        raise ConfigError(f"{SETTING}: {place} is an export, which holds one set of weights: leave out --init.ema")
    stored, config = open_safetensors(own_path), read_config(path).mllm
    own = {plain_name(name): tensor for name, tensor in stored.items() if not name.startswith(STATISTICS)}
    if config.lora:
        if location.find(ADAPTERS) is None:  # which fetches it from the hub
            raise location.missing(ADAPTERS)
        own |= stored_adapters(path.parent, config)
    pretrained = language_model(config if config.lora else replace(config, weights=place, revision=None))

    def find(name: str) -> Source | None:
        return own.get(name) or pretrained(name)

    statistics = {name.removeprefix(STATISTICS): whole(stored[name]) for name in stored if name.startswith(STATISTICS)}
    return Trained(set(own), find, statistics)


def language_model(config: MLLMConfig) -> Callable[[str], Source | None]:
    """Returns the function that finds a parameter of a language model in its published layout, or ``None``.

    The files are opened when they are first needed.
    """
    part: Part = mllm_part(config)
    opened = cache(part.open)

    def find(name: str) -> Source | None:
        keys = part.stored_names(name)
        return next((opened()[key] for key in keys if key in opened()), None) if keys else None

    return find


def whole(stored: Source) -> Tensor:
    """Reads a whole tensor, in fp32."""
    values = torch.empty(stored.shape)
    stored.read_into(values.view(-1), 0)
    return values


def set_statistics(framework: VTokFramework, statistics: Mapping[str, Tensor]) -> None:
    """Stores the features' mean and deviation in a framework."""
    for name, value in statistics.items():
        framework.measured.get_buffer(name).copy_(value)
