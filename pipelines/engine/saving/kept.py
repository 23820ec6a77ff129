"""Frozen weights that a run cannot read again elsewhere: written once, into the run's folder, before the first step.

    OUTPUT/kept/    rank_XXXXX.safetensors    each rank's slices
                    state.json                shapes
                    COMPLETE                  size and checksum of each file, written last

Checkpoints hold what trains. Pretrained models hold most of what does not. The rest stands here: frozen parameters that
a trained VTok gave (``init_from``) or that the seed drew. Each checkpoint stores size and checksum of COMPLETE, so that
it is not read with other frozen weights, or with none.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from pipelines.engine import distributed, internals
from pipelines.engine.saving.checkpoint import WEIGHTS, read_state
from pipelines.engine.saving.choosing import damage, fault, seal
from pipelines.engine.saving.folders import COMPLETE, STATE, erase, make_empty
from pipelines.engine.saving.slices import SliceReader, Slices, Source, flush, slice_file, write_slices
from pipelines.engine.saving.writing import mark_complete
from vtok.assembly.build import LANGUAGE_MODEL, pretrained_parts
from vtok.config import ConfigError, require
from vtok.framework import VTokFramework
from vtok.weights import StoredTensor, shape_of, shapes_of

KEPT = "kept"


@torch.no_grad()
def write(output: Path, module: nn.Module, names: Collection[str]) -> None:
    """Writes frozen parameters of a module, which may be sharded. All ranks call this.

    Args:
        output: Folder of the run.
        module: The module.
        names: Names of the parameters. If there are none, only what an earlier attempt has kept is removed.

    Raises:
        ConfigError: The disk is full, or something else forbids it.
    """
    folder = output / KEPT

    def begin() -> None:
        with writing_to(folder):
            if names:
                make_empty(folder)
            elif folder.is_dir():
                erase(folder)

    distributed.rank_zero_first(begin)
    if not names:
        return
    cuts = {name: internals.frozen_slice(p) for name, p in module.named_parameters() if name in names}
    tensors = {f"{WEIGHTS}/{name}": values.to("cpu", copy=True) for name, (_, values) in cuts.items()}
    starts = {name: start for name, (start, _) in cuts.items()}

    def write_own() -> dict[str, dict[str, int]]:
        path = slice_file(folder, distributed.rank())
        with writing_to(folder):
            write_slices(path, tensors, starts)
            return {path.name: seal(path)}

    shapes = {name: shape_of(p) for name, p in module.named_parameters() if name in names}

    def finish(seals: list[list[tuple[str, dict[str, int]]]]) -> None:
        with writing_to(folder):
            (folder / STATE).write_text(json.dumps({"shapes": shapes}))
            flush(folder / STATE)
            mark_complete(folder, {"files": dict(sum(seals, [(STATE, seal(folder / STATE))]))})

    seals = distributed.gather_lists(list(distributed.every_rank(write_own).items()))
    distributed.rank_zero_first(lambda: finish(seals))


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Raises ConfigError if the system forbids what is done within."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}: make room or change --output") from error


def mark(output: Path) -> dict[str, int]:
    """Returns what identifies what a run has kept, for ``RunState.kept``. It is empty if the run has kept nothing."""
    marker = output / KEPT / COMPLETE
    return seal(marker) if marker.is_file() else {}


@contextmanager
def opened(output: Path, checkpoint: Path | None = None) -> Iterator[Mapping[str, Slices]]:
    """Opens what a run has kept. Within, it can be read. Each rank checks its share of the files.

    Args:
        output: Folder of the run.
        checkpoint: The checkpoint that is read with it; ``None`` if none is read.

    Yields:
        The parameters, by name. None if the run has kept nothing.

    Raises:
        ConfigError: A file is damaged, or what the checkpoint was trained with is not there.
    """
    folder = output / KEPT
    if not holds(folder, checkpoint):
        yield {}
        return
    share = slice(distributed.rank(), None, distributed.world_size())
    if fault := damage(folder, share):
        raise ConfigError(f"{fault}: the run's frozen weights are lost")
    shapes = json.loads((folder / STATE).read_text())["shapes"]
    with SliceReader(folder) as reader:
        yield {name: Slices(reader, f"{WEIGHTS}/{name}", tuple(shape)) for name, shape in shapes.items()}


def holds(folder: Path, checkpoint: Path | None) -> bool:
    """Whether a run has kept something in a folder. Arguments as in :func:`opened`.

    Raises:
        ConfigError: The checkpoint was trained with kept weights, and the folder does not hold them.
    """
    marker = folder / COMPLETE
    expected = read_state(checkpoint).kept if checkpoint else None
    if expected == {}:
        return False
    # A checkpoint of an earlier version names nothing. It needs what is there.
    needed = expected is not None or (checkpoint is not None and (folder / STATE).is_file())
    require(
        not needed or marker.is_file(),
        f"{checkpoint} was trained with frozen weights that its run holds in {KEPT}/, and {folder} is not there or not "
        "whole: copy it too",
    )
    require(
        expected is None or fault(marker, expected) is None,
        f"{folder} holds other frozen weights than {checkpoint} was trained with: copy {KEPT}/ of its own run there",
    )
    return marker.is_file()


def only_here(framework: VTokFramework, initial: Mapping[str, Source]) -> list[str]:
    """Names the frozen parameters that a run must keep: all but those that it can read from pretrained weights again.

    Args:
        framework: The run's framework, with or without weights.
        initial: What a trained VTok gives it, by name.
    """
    frozen = [name for name, p in framework.named_parameters() if name in framework.learnable and not p.requires_grad]
    shapes = shapes_of(framework)
    language = pretrained_parts(framework.config)[LANGUAGE_MODEL].tensors({name: shapes[name] for name in frozen})
    return [name for name in frozen if name not in language or is_other(initial.get(name), language[name])]


def is_other(given: Source | None, pretrained: StoredTensor) -> bool:
    """Whether a parameter is given from elsewhere than the pretrained tensor."""
    same = isinstance(given, StoredTensor) and given.key == pretrained.key and given.file.samefile(pretrained.file)
    return given is not None and not same
