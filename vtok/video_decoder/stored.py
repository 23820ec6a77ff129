"""Builds the parts of a video decoder from the configurations that are stored beside their weights."""

from collections.abc import Sequence
from typing import Any, TypeVar

from diffusers.configuration_utils import ConfigMixin
from transformers import PreTrainedConfig, PreTrainedModel

from vtok.vidtok.latent_space import VidTokAutoencoder
from vtok.weights import Location, ReadConfig
from vtok.weights.field_types import require_types

C = TypeVar("C", bound=PreTrainedConfig)
M = TypeVar("M", bound=PreTrainedModel)


def diffusers_part(
    location: Location, kinds: Sequence[type[ConfigMixin] | type[VidTokAutoencoder]], read_config: ReadConfig
) -> Any:
    """Builds a part from diffusers' kind of configuration, without weights.

    Args:
        location: Where the part lies.
        kinds: The classes that it may have. Its configuration names one.
        read_config: Reads the configuration.

    Returns:
        An instance of one of ``kinds``.

    Raises:
        ConfigError: The configuration is missing or of another class, or cannot be used.
    """
    name = kinds[0].config_name
    assert name is not None
    stored = read_config(location, name)
    location.require_plain(stored)
    found = stored.get("_class_name")
    for kind in kinds:
        if kind.__name__ == found:
            require_types(location, name, kind, stored)
            with location.building(name):
                return kind.from_config(stored)
    raise location.error(f"its {name} is of a {found!r}, not a {kinds[0].__name__}")


def transformers_part(location: Location, kind: type[C], model: type[M], read_config: ReadConfig) -> M:
    """Builds a part that transformers defines, without weights.

    Args:
        location: Where the part lies.
        kind: The class of its configuration.
        model: The class of the part.
        read_config: Reads the configuration.

    Raises:
        ConfigError: The configuration is missing or of another kind of model, or cannot be used.
    """
    stored = read_config(location, "config.json")
    location.require_plain(stored)
    if (found := stored.get("model_type")) != kind.model_type:
        raise location.error(f"its config.json is of a {found!r}, not a {kind.model_type!r}")
    with location.building("config.json"):
        return model(kind.from_dict(stored))
