"""The multimodal language model of the kind that the configuration names.

To add a kind, describe it as a :class:`vtok.mllm.base.Published` in a file here and enter it in ``KINDS``.
"""

import torch
from transformers import GenerationConfig

from vtok.config import MLLMConfig, member
from vtok.lora import LANGUAGE_TARGETS, add_adapters
from vtok.mllm.base import CONDITIONING_LAYER, MLLM, Hidden, Published, Split
from vtok.mllm.llama import LLAMA
from vtok.mllm.llava_next import LLAVA, LLAVA_NEXT
from vtok.mllm.qwen25_vl import QWEN25_VL
from vtok.weights import TRANSFORMERS_FILES, Location, Part, ReadConfig

__all__ = ["CONDITIONING_LAYER", "MLLM", "Hidden", "Split", "empty_mllm", "generation_config", "mllm_part", "published"]

KINDS: dict[str, Published] = {"llava-next": LLAVA_NEXT, "llava": LLAVA, "llama": LLAMA, "qwen2.5-vl": QWEN25_VL}


def published(config: MLLMConfig) -> Published:
    """Returns the kind of ``config.kind``."""
    return member(KINDS, config.kind, "mllm.kind")


def mllm_location(config: MLLMConfig) -> Location:
    """Returns the folder or repository of the model."""
    return Location(published(config).name, "mllm.weights", config.weights, config.revision)


def mllm_part(config: MLLMConfig) -> Part:
    """Returns where the weights of the language model, and of the projector if it has one, lie."""
    return Part(mllm_location(config), TRANSFORMERS_FILES, published(config).keys, whole=config.lora is None)


def empty_mllm(config: MLLMConfig, read_config: ReadConfig = Location.read_json) -> Split:
    """Builds the language model and its projector on the meta device, with adapters if the settings ask for them.

    Args:
        config: The settings.
        read_config: Reads the architecture that is stored beside the weights.

    Raises:
        ConfigError: There is no such hub id or folder, it holds another architecture, or adapters do not fit it.
    """
    kind, location = published(config), mllm_location(config)
    stored = read_config(location, "config.json")
    if (found := stored.get("model_type")) != kind.config.model_type:
        fits = [name for name, other in KINDS.items() if other.config.model_type == found]
        raise location.error(
            f"its config.json is of a {found!r}, not a {kind.config.model_type!r}"
            + (f": set mllm.kind {fits[0]}" if fits else "")
        )
    location.require_plain(stored)
    with torch.device("meta"), location.building("config.json"):
        split = kind.split(kind.model(kind.config.from_dict(stored)), config)
    layers, least = len(split.mllm.causal_lm.model.layers), -CONDITIONING_LAYER - 1
    if layers < least:
        raise location.error(
            f"its config.json describes a language model of {layers} layers, and at least {least} are needed: "
            "take the config.json of these weights"
        )
    if config.lora is not None:
        language = split.mllm.causal_lm.requires_grad_(False)
        add_adapters([language.model.layers], config.lora, LANGUAGE_TARGETS, "mllm.lora")
    return split


def generation_config(config: MLLMConfig) -> GenerationConfig | None:
    """Returns the generation settings that were published with the model, or ``None``.

    Raises:
        ConfigError: They cannot be used.
    """
    location, name = mllm_location(config), "generation_config.json"
    if location.find(name) is None:
        return None
    stored = location.read_json(name)
    with location.building(name):
        return GenerationConfig.from_dict(stored)
