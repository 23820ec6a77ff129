"""Slices of flattened tensors in safetensors files, one file per rank. Any number of ranks can read them.

    FOLDER/rank_00000.safetensors     tensors "KIND/NAME", each a slice of a flattened parameter; in the file's
           rank_00001.safetensors     metadata, where each slice starts
           ...

A reader asks for a range of a parameter's elements. It does not need to know how the writers cut the parameter. It
reads only files that COMPLETE names, so a copy that a user has put beside them does not count.
"""

import errno
import json
import os
import re
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipelines.engine.saving.choosing import seals_in
from pipelines.engine.saving.folders import COMPLETE
from vtok.config import ConfigError
from vtok.weights import PIECE

NAME = re.compile(r"rank_\d{5,}\.safetensors")
MEND = "copy it again, or take another checkpoint (--step)"


def slice_file(folder: Path, rank: int) -> Path:
    return folder / f"rank_{rank:05d}.safetensors"


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system whose folders need no such call
            raise
    finally:
        os.close(descriptor)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file from tensors on the CPU.

    Raises:
        OSError: The disk is full, or something else forbids it. safetensors itself raises an error of its own.
    """
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def write_slices(path: Path, tensors: dict[str, Tensor], starts: dict[str, int]) -> None:
    """Writes a rank's slices. They are on disk when this returns. A file of this name is always complete.

    If it fails, it leaves nothing, so that a full disk gets its room back.

    Args:
        path: The file.
        tensors: Slices on the CPU, by "KIND/NAME".
        starts: First element of a slice in the flattened parameter, by NAME. 0 if missing.
    """
    part = path.with_suffix(".part")
    try:
        write_tensors(part, tensors, {"starts": json.dumps(starts)})
        flush(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    flush(path.parent)


def slice_files(folder: Path) -> list[Path]:
    """Lists the files of slices in a folder: those that COMPLETE names; if it names none, those with such a name."""
    sealed = seals_in(folder) if (folder / COMPLETE).is_file() else {}
    names = sealed or [path.name for path in folder.iterdir()]
    return [folder / name for name in sorted(names) if NAME.fullmatch(name)]


class SliceReader:
    """Reads ranges of parameters from the files of all ranks that wrote them. Use it as a context manager.

    Raises:
        ConfigError: A file is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._open = ExitStack()
        self._pieces: dict[str, list[tuple[int, int, object]]] = defaultdict(list)  # key -> (start, end, file)
        for path in slice_files(folder):
            try:
                self._add(path)
            except (OSError, SafetensorError, KeyError, ValueError) as error:
                self._open.close()
                raise ConfigError(f"{path} cannot be read ({error}): {MEND}") from error

    def _add(self, path: Path) -> None:
        file = self._open.enter_context(safe_open(path, framework="pt"))
        starts = json.loads((file.metadata() or {})["starts"])
        for key in file.keys():
            start = starts.get(key.partition("/")[2], 0)
            self._pieces[key].append((start, start + file.get_slice(key).get_shape()[0], file))

    def __enter__(self) -> "SliceReader":
        return self

    def __exit__(self, *error) -> None:
        self._open.close()

    def __contains__(self, key: str) -> bool:
        return key in self._pieces

    def read_into(self, flat: Tensor, key: str, start: int) -> None:
        """Fills ``flat`` (n,), of any dtype and device, with a flattened parameter's elements from ``start`` on.

        Raises:
            ConfigError: The files do not hold all of them.
        """
        reached, end = start, start + flat.numel()
        for begin, stop, file in sorted(self._pieces[key], key=lambda piece: piece[0]):
            stored = file.get_slice(key)
            while begin <= reached < min(stop, end):
                piece = stored[reached - begin : min(stop, end, reached + PIECE) - begin]
                flat[reached - start : reached - start + len(piece)].copy_(piece)
                reached += len(piece)
        if reached != end:
            raise ConfigError(f"{self.folder}: elements {reached} to {end} of {key} are in none of its files: {MEND}")


class Source(Protocol):
    """A stored tensor, here or in another kind of file."""

    shape: tuple[int, ...]

    def read_into(self, flat: Tensor, start: int) -> None: ...


class Slices(NamedTuple):
    """A parameter that the ranks of a run have stored in slices.

    Attributes:
        reader: Reads a folder of slices.
        key: Kind and name of the parameter.
        shape: Its shape.
    """

    reader: SliceReader
    key: str
    shape: tuple[int, ...]

    def read_into(self, flat: Tensor, start: int) -> None:
        """Fills ``flat`` (n,) with the elements from ``start`` on."""
        self.reader.read_into(flat, self.key, start)
