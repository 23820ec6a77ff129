"""Saves and loads a framework as a folder. transformers can open it as the published kind, such as LLaVA-Next.

    FOLDER/config.json, model*.safetensors, tokenizer and processor files     of transformers' class
           vtok.safetensors     g_phi, visual heads, P, the decoder's adapter, the features' mean and deviation
           vtok_config.json     the settings, written last: a folder that has it is complete

The frozen backbone and decoder are not copied. The settings name them by hub id or absolute path. So they do with a
language model that has adapters: then the folder holds these alone, as peft does (:mod:`vtok.assembly.adapters`), and
phi_vis stands in ``vtok.safetensors``.
"""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_type_hints

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector
from transformers.models.llava_next.modeling_llava_next import LlavaNextMultiModalProjector
from transformers.utils import cached_file

from vtok.adapter_names import is_adapter
from vtok.assembly.adapters import save_adapters, stored_adapters
from vtok.assembly.architectures import assemble
from vtok.assembly.build import with_weights
from vtok.config import ConfigError, LoraConfig, ModelConfig
from vtok.framework import VTokFramework
from vtok.mllm import mllm_part, published
from vtok.weights import first_line
from vtok.weights.materialise import Place
from vtok.weights.shipped import folder_of, folder_or_id

CONFIG, WEIGHTS = "vtok_config.json", "vtok.safetensors"
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def save_pretrained(framework: VTokFramework, folder: str | Path) -> None:
    """Writes a folder that :func:`from_pretrained` and transformers' classes open.

    Raises:
        ConfigError: ``folder`` is not empty, the published model cannot be read again, or the backbone has random
            weights.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: choose another folder")
    if framework.config.tokeniser.weights is None:
        raise ConfigError("the backbone has random weights, which are not saved: set tokeniser.weights")
    if framework.config.tokeniser.reads_vectors and framework.config.tokeniser.codec is None:
        raise ConfigError("the motion codec has random weights, which are not saved: set tokeniser.codec")
    mllm = framework.config.mllm
    whole, source = None if mllm.lora else as_published(framework), folder_or_id(mllm.weights)
    folder.mkdir(parents=True, exist_ok=True)
    if whole is None:
        save_adapters(framework, folder)
    else:
        whole.save_pretrained(folder)
    framework.text.tokenizer.save_pretrained(folder)
    for name in PROCESSOR_FILES:
        if file := cached_file(source, name, revision=mllm.revision, _raise_exceptions_for_missing_entries=False):
            shutil.copyfile(file, folder / name)
    save_file(own_state(framework), folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(asdict(portable(framework.config)), indent=2))


def as_published(framework: VTokFramework) -> PreTrainedModel:
    """Returns the published model with our language model and phi_vis. Other parts, such as its tower, are original.

    Raises:
        ConfigError: ``mllm.weights`` cannot be read again.
    """
    mllm = framework.config.mllm
    try:
        variant = mllm_part(mllm).open().variant
        source = folder_or_id(mllm.weights)
        whole = published(mllm).model.from_pretrained(source, revision=mllm.revision or "main", variant=variant)
    except (OSError, ValueError) as error:
        raise ConfigError(f"mllm.weights: cannot load {mllm.weights!r}: {first_line(error)}") from error
    causal_lm = framework.mllm.causal_lm
    setattr(*language_model_of(whole), causal_lm.model)
    whole.lm_head = causal_lm.lm_head
    if has_llava_projector(framework):
        whole.model.multi_modal_projector = framework.projection.projector
    return whole.to(causal_lm.dtype)  # type: ignore[arg-type]  # a decorator of transformers hides self


def language_model_of(whole: PreTrainedModel) -> tuple[nn.Module, str]:
    """Returns the module that holds a published model's language model, and the attribute's name."""
    return (whole.model, "language_model") if hasattr(whole.model, "language_model") else (whole, "model")


def has_llava_projector(framework: VTokFramework) -> bool:
    """Whether phi_vis is LLaVA's projector, trained further. A new one does not fit LLaVA's vision tower."""
    return isinstance(framework.projection.projector, LlavaNextMultiModalProjector | LlavaMultiModalProjector)


def own_state(framework: VTokFramework) -> dict[str, Tensor]:
    """Returns the tensors that neither the published model nor peft's files nor the frozen parts hold, by name."""
    elsewhere: tuple[str, ...] = ("mllm.", "decoder.", "tokeniser.feature_extractor.")
    if has_llava_projector(framework) and framework.config.mllm.lora is None:
        elsewhere += ("projection.projector.",)
    trained = tuple(f"decoder.{name}." for name in framework.added_parts)
    state = framework.state_dict()
    own = [
        name
        for name in state
        if name.startswith(trained)
        or not name.startswith(elsewhere)
        or (name.startswith("decoder.") and is_adapter(name))
    ]
    return {name: state[name].contiguous() for name in own}


def portable(config: ModelConfig) -> ModelConfig:
    """Returns the settings with paths that hold in the folder and from any working directory."""
    parts = {name: getattr(config, name) for name in ("tokeniser", "decoder") + ("mllm",) * bool(config.mllm.lora)}
    named = {
        name: replace(part, weights=str(Path(part.weights).resolve()))
        for name, part in parts.items()
        if part.weights and Path(part.weights).exists()
    }
    if config.decoder.vae:
        named["decoder"] = replace(named.get("decoder", config.decoder), vae=str(Path(config.decoder.vae).resolve()))
    if config.tokeniser.codec:
        tokeniser = named.get("tokeniser", config.tokeniser)
        named["tokeniser"] = replace(tokeniser, codec=str(Path(config.tokeniser.codec).resolve()))
    if config.mllm.lora is None:
        named["mllm"] = replace(config.mllm, weights=".", revision=None)
    return replace(config, **named)


def from_pretrained(folder: str | Path, place: Place | None = None) -> VTokFramework:
    """Loads the framework that :func:`save_pretrained` wrote.

    Args:
        folder: The folder, a shipped model such as ``shapes/vtok``, or a hub id.
        place: Where the parameters go, and in which dtype. Whole, in fp32, on the CPU if omitted.

    Raises:
        ConfigError: It is not such a folder, it is incomplete, or a frozen part is not where it was.
    """
    folder = fetched(str(folder))
    config = read_config(folder / CONFIG)
    if config.mllm.lora is None:
        config = replace(config, mllm=replace(config.mllm, weights=str(folder)))
    adapters = stored_adapters(folder, config.mllm) if config.mllm.lora else {}
    readers = {name: tensor.read_into for name, tensor in adapters.items()}
    framework = with_weights(assemble(config), place, trained=readers)
    try:
        stored = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read {folder / WEIGHTS}: {first_line(error)}") from error
    wanted = own_state(framework)
    for name in wanted.keys() | stored.keys():
        found = [tuple(tensors[name].shape) if name in tensors else "nothing" for tensors in (wanted, stored)]
        if found[0] != found[1]:
            raise ConfigError(f"{folder / WEIGHTS}: {name} should be {found[0]}, found {found[1]}")
    framework.load_state_dict(stored, strict=False)
    return framework


def fetched(name: str) -> Path:
    """Returns the folder of a saved framework. That of a hub id is fetched into the hub's cache.

    Raises:
        ConfigError: It is no folder, no shipped model, and not on the hub.
    """
    if folder := folder_of(name):
        return folder
    try:
        return Path(snapshot_download(name))
    except (OSError, HFValidationError) as error:
        raise ConfigError(f"there is no folder {name}, and the hub does not give it: {first_line(error)}") from error


def section(kind: type, values: dict[str, Any]) -> Any:
    """Returns a section of the settings, in which adapters may be another section."""
    adapters = values.get("lora")
    return kind(**values | ({"lora": LoraConfig(**adapters)} if adapters else {}))


def read_config(path: Path) -> ModelConfig:
    """Reads the settings of a model; raises ConfigError if there are none in ``path``."""
    try:
        values = json.loads(path.read_text())
        return ModelConfig(**{name: section(kind, values[name]) for name, kind in get_type_hints(ModelConfig).items()})
    except OSError as error:
        raise ConfigError(f"{path.parent} holds no {path.name}: save_pretrained writes such folders") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} does not hold a model's settings: {first_line(error)}") from error
