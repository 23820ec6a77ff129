"""Reads pretrained weights from disk, a range of elements at a time.

A checkpoint is a folder, a shipped model or a hub id (read through the hub's cache). It holds safetensors, in one file
or in several with an index, or PyTorch's own files (CLIP-L/336 was published so). Opening one reads headers only.
Ranges are read, not mapped, since the pages of a mapping would count as the process's memory.
"""

import hashlib
import json
import mmap
import struct
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeGuard

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from torch import Tensor, nn

from vtok.adapter_names import is_adapter, plain_name
from vtok.config import ConfigError
from vtok.fp8 import is_scale
from vtok.weights.library import library_errors
from vtok.weights.shipped import folder_of
from vtok.weights.surplus import surplus

PIECE = 1 << 20  # elements held at once while reading
TRANSFORMERS_FILES = ("model.safetensors", "pytorch_model.bin")
DIFFUSERS_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
VARIANTS = ("fp16", "bf16")  # a folder may hold only one of them
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
FETCH = "fetch it again"


@dataclass(frozen=True)
class Location:
    """Where a pretrained part lies.

    Attributes:
        what: The part's name in error messages.
        setting: The key of the configuration that names it.
        weights: Folder, shipped model or hub id.
        revision: Branch, tag or commit of a hub id.
        subfolder: Subfolder of the folder or repository.
    """

    what: str
    setting: str
    weights: str
    revision: str | None = None
    subfolder: str = ""

    def find(self, name: str) -> Path | None:
        """Returns the file ``name``, or ``None`` if it does not exist. Downloads it into the hub's cache if needed.

        Raises:
            ConfigError: ``weights`` is not a folder, and the hub does not give it.
        """
        if folder := folder_of(self.weights):
            path = folder / self.subfolder / name
            return path if path.is_file() else None
        try:
            return Path(hf_hub_download(self.weights, name, subfolder=self.subfolder or None, revision=self.revision))
        except EntryNotFoundError:
            return None
        except (OSError, HFValidationError) as error:
            raise self.error(f"no such folder, and not on the hub: {first_line(error)}") from error

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads the JSON file ``name``; raises ConfigError if it is missing, not JSON or no object."""
        path = self.find(name)
        if path is None:
            raise self.missing(name)
        try:
            stored = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise self.error(f"{name} is not valid JSON: {first_line(error)}") from error
        if not isinstance(stored, dict):
            raise self.error(f"{name} should hold one object {{...}}, and holds a {type(stored).__name__}: {FETCH}")
        return stored

    def require_plain(self, stored: Mapping[str, Any]) -> None:
        """Raises ConfigError if a configuration says that its weights are quantised, in itself or in a section."""
        sections = (stored, *(section for section in stored.values() if isinstance(section, dict)))
        found = next((found for section in sections if (found := section.get("quantization_config"))), None)
        if found:
            method = found.get("quant_method") if isinstance(found, dict) else None
            raise self.error(
                f"its weights are quantised ({method or 'quantization_config'}): name the weights in bf16, fp16 or fp32"
            )

    def building(self, name: str) -> AbstractContextManager[None]:
        """Within, what a library raises at the content of the file ``name`` becomes a ConfigError."""
        return library_errors(lambda problem: self.error(f"its {name} cannot be used: {problem}"))

    def missing(self, *names: str) -> ConfigError:
        """Makes the error that says these files do not exist."""
        asked = "" if folder_of(self.weights) else "; no folder, and the hub and its cache give no such file"
        return self.error(f"there is no {' and no '.join(names)}{asked}")

    def error(self, problem: str) -> ConfigError:
        """Makes an error about this part."""
        place = f"{self.weights}/{self.subfolder}".rstrip("/")
        version = f" at revision {self.revision}" if self.revision else ""
        return ConfigError(f"{self.setting}: no {self.what} in {place!r}{version}: {problem}")


# Reads a part's architecture, given its location and the name of the file.
ReadConfig = Callable[[Location, str], dict[str, Any]]


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


def varied(name: str, variant: str | None) -> str:
    """Returns the name that transformers and diffusers give to a variant: ``model.fp16.safetensors``."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{variant}.{suffix}" if variant else name


class Checkpoint:
    """The tensors of a part, in one file or several. A file is opened when one of its tensors is asked for.

    Args:
        location: Where the files lie.
        names: Names to look for; the first that exists is taken. Each may also exist as ``{name}.index.json`` with
            several files. If there is none, they are looked for as variants: ``model.fp16.safetensors``.

    Attributes:
        variant: ``fp16`` or ``bf16`` if there is only a variant, else ``None``.

    Raises:
        ConfigError: There is no such file.
    """

    files: dict[str, str]
    variant: str | None

    def __init__(self, location: Location, names: tuple[str, ...]):
        self.location = location
        self.opened: dict[str, dict[str, StoredTensor]] = {}
        for self.variant in (None, *VARIANTS):
            for name in names:
                file, index = varied(name, self.variant), varied(f"{name}.index.json", self.variant)
                if path := location.find(file):
                    self.opened[file] = open_file(path)
                    self.files = dict.fromkeys(self.opened[file], file)
                    return
                if location.find(index):
                    self.files = indexed(location, index)
                    return
        raise location.missing(names[0], f"{names[0]}.index.json")

    def __contains__(self, key: str) -> bool:
        return key in self.files

    def __getitem__(self, key: str) -> StoredTensor:
        """Returns a tensor; raises ConfigError if the file that the index names is missing or does not hold ``key``."""
        name = self.files[key]
        if name not in self.opened:
            path = self.location.find(name)
            if path is None:
                raise self.location.error(f"the file {name}, which holds {key}, is missing")
            self.opened[name] = open_file(path)
        if key not in self.opened[name]:
            raise self.location.error(f"{name} does not hold {key}, although its index says so: fetch it again")
        return self.opened[name][key]


def indexed(location: Location, index: str) -> dict[str, str]:
    """Returns the names of the files in an index, by the names of the tensors that they hold.

    Raises:
        ConfigError: It is no such index.
    """
    files = location.read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) and file for file in files.values()):
        raise location.error(f"{index} should name a file for each tensor, in its weight_map: {FETCH}")
    return files


@dataclass(frozen=True)
class Part:
    """A pretrained part of a module.

    Attributes:
        location: Where its files lie.
        files: Their names (see :class:`Checkpoint`).
        keys: Maps the prefix of a parameter's name to the prefixes that it may have in the checkpoint. They depend on
            the releases of transformers that wrote the checkpoint and that read it.
        whole: Whether a folder must hold all files that its index names. An export reads the whole published model
            again, also what no module of ours has, such as its vision tower.
        cut: Whether the module may leave out weights that are stored: VGG19 ends at a layer that the settings choose.
    """

    location: Location
    files: tuple[str, ...]
    keys: Mapping[str, tuple[str, ...]]
    whole: bool = False
    cut: bool = False

    def below(self, prefix: str) -> "Part":
        """Returns the same part for a module that holds it under ``prefix``."""
        return replace(self, keys={prefix + name: stored for name, stored in self.keys.items()})

    def all_tensors(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, StoredTensor]:
        """As :meth:`tensors`, for all parameters of the part.

        Raises:
            ConfigError: As there; or the checkpoint holds weights of the part that the model has no place for.
        """
        checkpoint = self.open()
        found = self.found_in(checkpoint, shapes)
        names = {plain_name(name) for name in found}
        if not self.cut and names and (excess := surplus(checkpoint.files, names, self.keys)):
            raise self.location.error(f"its config.json describes {excess}: take the config.json of these weights")
        return found

    def tensors(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, StoredTensor]:
        """Returns the stored tensors of the parameters that belong to this part, by name.

        Args:
            shapes: Shapes of a module's parameters, by name. Some may belong to other parts.

        Raises:
            ConfigError: A parameter is not in the checkpoint, or has another shape there.
        """
        return self.found_in(self.open(), shapes)

    def found_in(self, checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, StoredTensor]:
        """As :meth:`tensors`, from the part's opened files."""
        found = {}
        for name, shape in shapes.items():
            keys = self.stored_names(name)
            key = next((key for key in keys if key in checkpoint), None)
            if not keys:
                continue
            if key is None:
                raise self.location.error(f"its weights lack {keys[0]}; is it another architecture?")
            found[name] = checkpoint[key]
            if found[name].shape != tuple(shape):
                raise ConfigError(
                    f"{self.location.setting}: {found[name].file}: {key} has shape {found[name].shape}, but by the "
                    f"model's configuration it is {tuple(shape)}"
                )
        return found

    def open(self) -> Checkpoint:
        """Opens the part's files.

        Raises:
            ConfigError: There are none, or some that the index names are missing from a folder that must be whole.
        """
        checkpoint = Checkpoint(self.location, self.files)
        if self.whole and folder_of(self.location.weights):  # the hub still gives what its cache lacks
            for name in sorted(set(checkpoint.files.values())):
                if self.location.find(name) is None:
                    raise self.location.error(f"the file {name}, which its index names, is missing: {FETCH}")
        return checkpoint

    def stored_names(self, name: str) -> list[str]:
        """Returns the names that a parameter may have in the checkpoint; none if it belongs elsewhere."""
        if is_adapter(name) or is_scale(name):
            return []
        name = plain_name(name)
        prefix = max((prefix for prefix in self.keys if name.startswith(prefix)), key=len, default=None)
        return [] if prefix is None else [stored + name.removeprefix(prefix) for stored in self.keys[prefix]]


def shape_of(parameter: nn.Parameter) -> tuple[int, ...]:
    """Returns the shape of the whole parameter, even if DeepSpeed has left this rank only a shard."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter, by name (see :func:`shape_of`)."""
    return {name: shape_of(parameter) for name, parameter in module.named_parameters()}


def content_hash(tensor: StoredTensor) -> str:
    """Returns the sha256 of a tensor's shape, dtype and bytes. It does not depend on the file."""
    digest = hashlib.sha256(f"{tensor.shape} {tensor.dtype}".encode())
    for piece in tensor.pieces(0, tensor.numel):
        digest.update(piece.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def combined_hash(hashes: Mapping[str, str]) -> str:
    """Combines the hashes of named tensors into one. The order does not matter."""
    return hashlib.sha256("\n".join(f"{name} {hashes[name]}" for name in sorted(hashes)).encode()).hexdigest()


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text. Libraries may write many; users get one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
