"""A part of the model whose weights a checkpoint holds: which stored tensor belongs to which parameter."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from vtok.adapter_names import is_adapter, plain_name
from vtok.config import ConfigError
from vtok.fp8 import is_scale
from vtok.weights.checkpoint import Checkpoint
from vtok.weights.location import FETCH, Location
from vtok.weights.shipped import folder_of
from vtok.weights.surplus import surplus
from vtok.weights.tensors import StoredTensor


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
