"""The tensors of a file, read from disk a range of elements at a time.

A file is of safetensors, or of PyTorch's own format (CLIP-L/336 was published so). Opening one reads headers only.
Ranges are read, not mapped, since the pages of a mapping would count as the process's memory.
"""

import hashlib
import json
import mmap
import struct
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeGuard

import torch
from torch import Tensor

from vtok.config import ConfigError
from vtok.weights.location import first_line

PIECE = 1 << 20  # elements held at once while reading
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class StoredTensor:
    """A tensor of a checkpoint, read flat in row-major order.

    Attributes:
        file, key: Where it lies.
        shape, dtype: Its stored shape and dtype.
    """

    def __init__(self, file: Path, key: str, shape: tuple[int, ...], dtype: torch.dtype):
        self.file, self.key, self.shape, self.dtype = file, key, shape, dtype

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()

    def pieces(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yields the elements ``start`` ... ``stop - 1`` in pieces of the stored dtype, each valid until the next."""
        raise NotImplementedError

    def read_into(self, flat: Tensor, start: int) -> None:
        """Fills ``flat`` (n,), of any dtype and device, with the elements from ``start`` on."""
        at = 0
        for piece in self.pieces(start, start + flat.numel()):
            flat[at : at + len(piece)].copy_(piece)
            at += len(piece)


class SafeTensor(StoredTensor):
    """A tensor of a safetensors file. Its bytes begin at ``offset``."""

    def __init__(self, file: Path, key: str, shape: tuple[int, ...], dtype: torch.dtype, offset: int):
        super().__init__(file, key, shape, dtype)
        self.offset = offset

    def pieces(self, start: int, stop: int) -> Iterator[Tensor]:
        if start == stop:
            return
        # Outside the heap: there, each buffer would leave a hole between the tensors that stay.
        memory = mmap.mmap(-1, min(PIECE, stop - start) * self.dtype.itemsize)
        buffer = torch.frombuffer(memory, dtype=self.dtype)
        with self.file.open("rb") as file:
            file.seek(self.offset + start * self.dtype.itemsize)
            for first in range(start, stop, PIECE):
                piece = buffer[: min(PIECE, stop - first)]
                if file.readinto(piece.view(torch.uint8).numpy().data) != piece.nbytes:
                    raise ConfigError(f"{self.file} ends within {self.key}: fetch it again")
                yield piece


class PickledTensor(StoredTensor):
    """A tensor of one of PyTorch's own files. The file stays mapped while the tensor is in use."""

    def __init__(self, file: Path, key: str, tensor: Tensor):
        super().__init__(file, key, tuple(tensor.shape), tensor.dtype)
        self.flat = tensor.flatten()

    def pieces(self, start: int, stop: int) -> Iterator[Tensor]:
        return iter(self.flat[start:stop].split(PIECE)) if stop > start else iter(())


def open_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Opens a safetensors file. Returns its tensors of plain float dtypes, by key.

    Raises:
        ConfigError: The file is not a whole safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= path.stat().st_size - 8:
                raise ValueError("no header")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        header.pop("__metadata__", None)
        for key, entry in header.items():
            require_entry(key, entry)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not a safetensors file: {first_line(error)}") from error
    first = 8 + length
    missing = first + max((entry["data_offsets"][1] for entry in header.values()), default=0) - path.stat().st_size
    if missing > 0:
        raise ConfigError(f"{path} lacks its last {missing} bytes: fetch it again")
    return {
        key: SafeTensor(path, key, tuple(entry["shape"]), DTYPES[entry["dtype"]], first + entry["data_offsets"][0])
        for key, entry in header.items()
        if entry["dtype"] in DTYPES  # others, such as position ids, are computed and never loaded
    }


def require_entry(key: str, entry: Any) -> None:
    """Raises ValueError unless an entry of a safetensors header says where a tensor lies."""
    named = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (named.get(name) for name in ("dtype", "shape", "data_offsets"))
    if not (isinstance(dtype, str) and sizes(shape) and sizes(offsets) and len(offsets) == 2):
        raise ValueError(f"its header describes {key} wrongly")
    held = offsets[1] - offsets[0]
    if dtype in DTYPES and held != torch.Size(shape).numel() * DTYPES[dtype].itemsize:
        raise ValueError(f"its header gives {key} {held} bytes, which do not fit the shape {shape}")


def sizes(value: Any) -> TypeGuard[list[int]]:
    """Whether a value of JSON is a list of numbers from 0 on."""
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def open_pickled(path: Path) -> dict[str, StoredTensor]:
    """Opens one of PyTorch's own files. Returns its tensors, by key. Only tensors and plain values are unpickled.

    Among these are the arguments of a command line, which Lightning stores.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        mapped = zipfile.is_zipfile(path)  # the format before PyTorch 1.6, which torchvision uses, must be read whole
        with torch.serialization.safe_globals([Namespace]):
            stored = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        stored = stored.get("state_dict", stored)  # Lightning's files hold more than the weights
        tensors = {key: value for key, value in stored.items() if isinstance(key, str) and isinstance(value, Tensor)}
        return {key: PickledTensor(path, key, value) for key, value in tensors.items()}
    except (OSError, RuntimeError, UnpicklingError, EOFError, AttributeError, ValueError, struct.error) as error:
        raise ConfigError(f"{path} is not a PyTorch checkpoint: {first_line(error)}") from error


def open_file(path: Path) -> dict[str, StoredTensor]:
    """Opens a file of either format. Returns its tensors, by key."""
    return open_safetensors(path) if path.suffix == ".safetensors" else open_pickled(path)


def content_hash(tensor: StoredTensor) -> str:
    """Returns the sha256 of a tensor's shape, dtype and bytes. It does not depend on the file."""
    digest = hashlib.sha256(f"{tensor.shape} {tensor.dtype}".encode())
    for piece in tensor.pieces(0, tensor.numel):
        digest.update(piece.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def combined_hash(hashes: Mapping[str, str]) -> str:
    """Combines the hashes of named tensors into one. The order does not matter."""
    return hashlib.sha256("\n".join(f"{name} {hashes[name]}" for name in sorted(hashes)).encode()).hexdigest()
