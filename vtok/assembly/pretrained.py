"""A framework as a folder, which transformers opens as the LLaVA-Next or Qwen2.5-VL it has become.

    FOLDER/config.json, model*.safetensors, tokenizer and processor files     of transformers' class for that
           vtok.safetensors     g_phi, visual heads, P, the decoder's adapter, the features' mean and deviation
           vtok_config.json     the settings; written last, so that a folder that has it is whole

The frozen backbone and decoder are named, by hub id or absolute path, and not copied.
"""

import json
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.llava_next.modeling_llava_next import LlavaNextMultiModalProjector
from transformers.utils import cached_file

from vtok.assembly.build import build_framework
from vtok.config import ConfigError, ModelConfig
from vtok.framework import VTokFramework
from vtok.mllm import published
from vtok.weights import first_line
from vtok.weights.materialise import Place
from vtok.weights.shipped import folder_or_id

CONFIG, WEIGHTS = "vtok_config.json", "vtok.safetensors"
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def save_pretrained(framework: VTokFramework, folder: str | Path) -> None:
    """Write a folder that :func:`from_pretrained` and the language model's own classes open.

    Raises:
        ConfigError: there is something in ``folder`` already, the published model cannot be read again, or the frozen
            backbone has no weights to name.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: choose another folder")
    if framework.config.tokeniser.weights is None:
        raise ConfigError("the backbone has random weights, which are not saved: set tokeniser.weights")
    mllm = framework.config.mllm
    whole, source = as_published(framework), folder_or_id(mllm.weights)
    folder.mkdir(parents=True, exist_ok=True)
    whole.save_pretrained(folder)
    framework.text.tokenizer.save_pretrained(folder)
    for name in PROCESSOR_FILES:
        if file := cached_file(source, name, revision=mllm.revision, _raise_exceptions_for_missing_entries=False):
            shutil.copyfile(file, folder / name)
    save_file(own_state(framework), folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(asdict(portable(framework.config)), indent=2))


def as_published(framework: VTokFramework) -> PreTrainedModel:
    """The published model with our language model and phi_vis; all else (its vision tower) is the original's.

    Raises:
        ConfigError: ``mllm.weights`` cannot be read again.
    """
    mllm = framework.config.mllm
    try:
        whole = published(mllm).model.from_pretrained(folder_or_id(mllm.weights), revision=mllm.revision or "main")
    except (OSError, ValueError) as error:
        raise ConfigError(f"mllm.weights: cannot load {mllm.weights!r}: {first_line(error)}") from error
    causal_lm = framework.mllm.causal_lm
    whole.model.language_model, whole.lm_head = causal_lm.model, causal_lm.lm_head
    if has_llava_projector(framework):
        whole.model.multi_modal_projector = framework.projection.projector
    return whole.to(causal_lm.dtype)


def has_llava_projector(framework: VTokFramework) -> bool:
    """Whether phi_vis is LLaVA's projector, trained on; a fresh one does not fit LLaVA's vision tower."""
    return isinstance(framework.projection.projector, LlavaNextMultiModalProjector)


def own_state(framework: VTokFramework) -> dict[str, Tensor]:
    """What neither the published model nor the frozen parts hold."""
    elsewhere = ("mllm.", "decoder.", "tokeniser.feature_extractor.")
    elsewhere += ("projection.projector.",) * has_llava_projector(framework)
    trained = tuple(f"decoder.{name}." for name in framework.added_parts)
    state = framework.state_dict()
    own = [name for name in state if name.startswith(trained) or not name.startswith(elsewhere)]
    return {name: state[name].contiguous() for name in own}


def portable(config: ModelConfig) -> ModelConfig:
    """The settings as they hold in the folder and from any working directory."""
    parts = {name: getattr(config, name) for name in ("tokeniser", "decoder")}
    named = {
        name: replace(part, weights=str(Path(part.weights).resolve()))
        for name, part in parts.items()
        if part.weights and Path(part.weights).exists()
    }
    if config.decoder.vae:
        named["decoder"] = replace(named.get("decoder", config.decoder), vae=str(Path(config.decoder.vae).resolve()))
    return replace(config, mllm=replace(config.mllm, weights=".", revision=None), **named)


def from_pretrained(folder: str | Path, place: Place | None = None) -> VTokFramework:
    """The framework that :func:`save_pretrained` wrote.

    Args:
        place: where the parameters go, and in which dtype; whole, in fp32, on the CPU if omitted.

    Raises:
        ConfigError: it is not such a folder, or not a whole one, or a frozen part is not where it was.
    """
    folder = Path(folder)
    config = read_config(folder / CONFIG)
    framework = build_framework(replace(config, mllm=replace(config.mllm, weights=str(folder))), place)
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


def read_config(path: Path) -> ModelConfig:
    """Raises ConfigError: no such file, or not the settings of a model."""
    try:
        values = json.loads(path.read_text())
        return ModelConfig(**{part.name: part.type(**values[part.name]) for part in fields(ModelConfig)})
    except OSError as error:
        raise ConfigError(f"{path.parent} holds no {path.name}: save_pretrained writes such folders") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} does not hold a model's settings: {first_line(error)}") from error
