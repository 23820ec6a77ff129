"""The weights of a trained VTok that a new run starts from (``init_from``).

Only the trained weights come along, and the statistics of the features. Step, optimiser, order and data begin anew.
Each rank reads its own slices.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipelines.cli.steps import run_of
from pipelines.config import InitConfig
from pipelines.engine.saving import checkpoint, choosing, folders
from pipelines.engine.saving.slices import SliceReader
from vtok.assembly.pretrained import CONFIG, WEIGHTS, read_config
from vtok.config import ConfigError
from vtok.framework import VTokFramework
from vtok.mllm import mllm_part
from vtok.weights import Location, Part, open_safetensors
from vtok.weights.materialise import Read

STATISTICS = "tokeniser.feature_scale."  # what the statistics are called in an export
SETTING = "init.weights"
NAMED = 5  # parameters that do not fit, in an error


class Source(Protocol):
    """A stored tensor."""

    shape: tuple[int, ...]

    def read_into(self, flat: Tensor, start: int) -> None: ...


class Slices(NamedTuple):
    """A parameter that the ranks of a run have stored in slices.

    Attributes:
        reader: Reads the checkpoint.
        key: Kind and name of the parameter.
        shape: Its shape.
    """

    reader: SliceReader
    key: str
    shape: tuple[int, ...]

    def read_into(self, flat: Tensor, start: int) -> None:
        """Fills ``flat`` (n,) with the elements from ``start`` on."""
        self.reader.read_into(flat, self.key, start)


@dataclass
class Trained:
    """What a trained VTok stores.

    Attributes:
        names: Names of all its trained parameters, as far as they are known without a framework.
        find: Finds a parameter by its name; ``None`` if it is not stored.
        statistics: Mean and deviation of the features, by the names of ``VTokFramework.measured``.
    """

    names: set[str]
    find: Callable[[str], Source | None]
    statistics: dict[str, Tensor]

    def readers(self, framework: VTokFramework) -> tuple[dict[str, Read], list[str]]:
        """Matches what is stored with the parameters that train.

        Returns:
            How to read those that fit, by name; and a line for each parameter that does not fit, is missing here or is
            missing there.
        """
        fitting: dict[str, Read] = {}
        wanted, unlike = checkpoint.trained_shapes(framework), []
        for name, shape in wanted.items():
            stored = self.find(name)
            if stored is None:
                unlike.append(f"{name} {shape}: not stored there")
            elif list(stored.shape) != shape:
                unlike.append(f"{name} {shape}: stored there as {list(stored.shape)}")
            else:
                fitting[name] = stored.read_into
        return fitting, unlike + [f"{name}: has no place in this model" for name in sorted(self.names - wanted.keys())]


@contextmanager
def opened(init: InitConfig, framework: VTokFramework) -> Iterator[tuple[Mapping[str, Read], dict[str, Tensor]]]:
    """Opens what a run starts from. Within, its readers can be used.

    Args:
        init: The settings.
        framework: The new run's framework, with or without weights.

    Yields:
        How to read the parameters, by name, and the statistics of the features that fit.

    Raises:
        ConfigError: There is no such model, or, with ``strict``, something does not fit.
    """
    if init.weights is None:
        yield {}, {}
        return
    with stored_in(init.weights, init.ema) as trained:
        fitting, unlike = trained.readers(framework)
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
        _, found = choosing.located(folder)
        with SliceReader(found) as reader:
            yield in_checkpoint(found, reader, ema)
    else:
        yield in_export(place, ema)


def in_checkpoint(folder: Path, reader: SliceReader, ema: bool) -> Trained:
    """Returns what a checkpoint of a run holds."""
    shapes = checkpoint.read_state(folder).shapes
    kind = checkpoint.AVERAGE if ema else checkpoint.WEIGHTS
    if not all(f"{kind}/{name}" in reader for name in shapes):
        raise ConfigError(f"{SETTING}: {folder} holds no average of the weights: leave out --init.ema")

    def find(name: str) -> Source | None:
        return Slices(reader, f"{kind}/{name}", tuple(shapes[name])) if name in shapes else None

    return Trained(set(shapes), find, load_file(folder / folders.STATISTICS))


def in_export(place: str, ema: bool) -> Trained:
    """Returns what an export holds: our own parameters, and the language model in its published layout."""
    location = Location("trained VTok", SETTING, place)
    path, own_path = location.find(CONFIG), location.find(WEIGHTS)
    if path is None or own_path is None:
        raise location.missing(CONFIG if path is None else WEIGHTS)
    if ema:
        raise ConfigError(f"{SETTING}: {place} is an export, which holds one set of weights: leave out --init.ema")
    own = open_safetensors(own_path)
    part: Part = mllm_part(replace(read_config(path).mllm, weights=place, revision=None))
    language = part.open()

    def find(name: str) -> Source | None:
        if name in own:
            return own[name]
        return next((language[key] for key in part.stored_names(name) if key in language), None)

    names = {name for name in own if not name.startswith(STATISTICS)}
    return Trained(names, find, {name.removeprefix(STATISTICS): whole(own[name]) for name in set(own) - names})


def whole(stored: Source) -> Tensor:
    """Reads a whole tensor, in fp32."""
    values = torch.empty(stored.shape)
    stored.read_into(values.view(-1), 0)
    return values


def set_statistics(framework: VTokFramework, statistics: Mapping[str, Tensor]) -> None:
    """Stores the features' mean and deviation in a framework."""
    for name, value in statistics.items():
        framework.measured.get_buffer(name).copy_(value)
