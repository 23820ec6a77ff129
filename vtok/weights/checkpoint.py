"""The files of a part: one with all its tensors, or several with an index."""

from vtok.weights.location import FETCH, Location
from vtok.weights.tensors import StoredTensor, open_file

TRANSFORMERS_FILES = ("model.safetensors", "pytorch_model.bin")
DIFFUSERS_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
VARIANTS = ("fp16", "bf16")  # a folder may hold only one of them


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


def varied(name: str, variant: str | None) -> str:
    """Returns the name that transformers and diffusers give to a variant: ``model.fp16.safetensors``."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{variant}.{suffix}" if variant else name
