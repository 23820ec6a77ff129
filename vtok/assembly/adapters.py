"""The language model's adapters as a folder of peft's: over the published model, which is not copied.

    FOLDER/adapter_config.json            names the published model and the layers with adapters
           adapter_model.safetensors      the adapters

``peft.PeftModel.from_pretrained(published, FOLDER)`` opens it. transformers' ``from_pretrained(FOLDER)`` does too, but
transformers 5.24 leaves out DoRA's magnitudes.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from vtok.adapter_names import is_adapter
from vtok.config import MLLMConfig
from vtok.framework import VTokFramework
from vtok.lora import DEFAULT, LANGUAGE_TARGETS, MAGNITUDE, merge_adapters, peft_config
from vtok.mllm import published
from vtok.weights import StoredTensor, open_safetensors
from vtok.weights.shipped import folder_or_id

WEIGHTS = "adapter_model.safetensors"
MODEL = "base_model.model."  # what peft puts before the names of the model
OURS = "mllm."


def merged(framework: VTokFramework) -> VTokFramework:
    """Adds the language model's adapters to its weights, in place, and returns the framework without them."""
    merge_adapters(framework.mllm)
    framework.config = replace(framework.config, mllm=replace(framework.config.mllm, lora=None))
    return framework


def save_adapters(framework: VTokFramework, folder: Path) -> None:
    """Writes the adapters of a framework's language model into an existing folder."""
    config = framework.config.mllm
    assert config.lora is not None
    layers = "|".join(map(re.escape, config.lora.targets or LANGUAGE_TARGETS))
    # The whole names, since the published vision tower has layers of the same last names.
    stored = peft_config(config.lora, rf".*language_model.*\.({layers})")
    stored.base_model_name_or_path, stored.revision = folder_or_id(config.weights), config.revision
    stored.inference_mode = True
    stored.save_pretrained(folder)
    tensors = {
        file_key(name, config): p.detach().contiguous()
        for name, p in framework.named_parameters()
        if name.startswith(OURS) and is_adapter(name)
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def stored_adapters(folder: Path, config: MLLMConfig) -> dict[str, StoredTensor]:
    """Opens the adapters in a folder. Returns them by their names in a framework.

    Args:
        folder: The folder.
        config: The language model's settings.

    Raises:
        ConfigError: The file is missing or damaged.
    """
    return {framework_name(key, config): tensor for key, tensor in open_safetensors(folder / WEIGHTS).items()}


def prefixes(config: MLLMConfig) -> Mapping[str, str]:
    """Returns the prefixes of the language model's parameters in a framework, and those in the published model."""
    return {ours: theirs[0] for ours, theirs in published(config).keys.items() if ours.startswith(OURS)}


def file_key(name: str, config: MLLMConfig) -> str:
    """Returns the key that peft stores a framework's adapter under."""
    ours, theirs = next(pair for pair in prefixes(config).items() if name.startswith(pair[0]))
    key = MODEL + theirs + name.removeprefix(ours)
    if key.endswith(MAGNITUDE):
        key = key.removesuffix(".weight")
    return key.replace(f"{DEFAULT}.", ".").removesuffix(DEFAULT)


def framework_name(key: str, config: MLLMConfig) -> str:
    """Returns the name that :func:`file_key` stores under a key."""
    name = key.removeprefix(MODEL)
    ours, theirs = next(pair for pair in prefixes(config).items() if name.startswith(pair[1]))
    name = (ours + name.removeprefix(theirs)).removesuffix(".weight")
    return f"{name}{DEFAULT}.weight"
