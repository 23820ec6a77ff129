"""Builds the parts of a video decoder from the configurations that are stored beside their weights."""

from collections.abc import Sequence
from typing import Any, TypeVar

from diffusers.configuration_utils import ConfigMixin
from transformers import PreTrainedConfig

from vtok.vidtok.latent_space import VidTokAutoencoder
from vtok.weights import Location, ReadConfig

C = TypeVar("C", bound=PreTrainedConfig)


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
        ConfigError: The configuration is missing or of another class.
    """
    name = kinds[0].config_name
    assert name is not None
    stored = read_config(location, name)
    found = stored.get("_class_name")
    for kind in kinds:
        if kind.__name__ == found:
            return kind.from_config(stored)
    raise location.error(f"its {name} is of a {found!r}, not a {kinds[0].__name__}")


def transformers_config(location: Location, kind: type[C], read_config: ReadConfig) -> C:
    """Reads the configuration of a part that transformers defines.

    Raises:
        ConfigError: It is missing or of another kind of model.
    """
    stored = read_config(location, "config.json")
    if (found := stored.get("model_type")) != kind.model_type:
        raise location.error(f"its config.json is of a {found!r}, not a {kind.model_type!r}")
    return kind.from_dict(stored)
