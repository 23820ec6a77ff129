"""The files of an OmniTokenizer: a published ``.ckpt``, or a folder that our training writes.

    FOLDER/config.json, omnitokenizer.safetensors

A published file holds the arguments that it was trained with, and these give the sizes. Its discriminators and
perceptual network are not read.
"""

from argparse import Namespace
from pathlib import Path
from pickle import UnpicklingError

import torch

from vtok.config import ConfigError
from vtok.omnitokenizer.config import OmniTokenizerConfig, omni_config, published_config
from vtok.omnitokenizer.model import OmniTokenizer
from vtok.weights import Location, Part, ReadConfig, first_line
from vtok.weights.field_types import require_types
from vtok.weights.own_folder import CONFIG, save_model

WEIGHTS, KIND = "omnitokenizer.safetensors", "OmniTokenizer"
PREFIXES = ("encoder.", "pre_vq_conv.", "codebook.", "post_vq_conv.", "decoder.")


def omni_location(weights: str, setting: str = "tokeniser.weights") -> Location:
    """Returns the folder of the weights, which is that of a published file."""
    return Location(KIND, setting, str(Path(weights).parent) if is_published(weights) else weights)


def is_published(weights: str) -> bool:
    """Whether weights are a published file rather than a folder."""
    return Path(weights).suffix == ".ckpt"


def stored_config(weights: str, read_config: ReadConfig = Location.read_json) -> OmniTokenizerConfig:
    """Reads the sizes of an OmniTokenizer; raises ConfigError if the weights are another model's or missing."""
    where = omni_location(weights)
    if is_published(weights):
        return published_config(published_arguments(Path(weights), where))
    stored = dict(read_config(where, CONFIG))
    if stored.pop("_class_name", None) != KIND:
        raise where.error("its config.json is of another model: pipelines/train_omnitokenizer.py writes such folders")
    require_types(where, CONFIG, OmniTokenizerConfig, stored)
    with where.building(CONFIG):
        return omni_config(stored)


def published_arguments(path: Path, where: Location) -> dict:
    """Reads the arguments in a published file. Tensors and plain values are unpickled, nothing else."""
    if not path.is_file():
        raise where.missing(path.name)
    try:
        with torch.serialization.safe_globals([Namespace]):
            stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return vars(stored["hyper_parameters"]["args"])
    except (OSError, RuntimeError, UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a checkpoint of OmniTokenizer: {first_line(error)}") from error


def omni_part(weights: str, prefixes: tuple[str, ...] = PREFIXES[:3]) -> Part:
    """Returns where the weights of these modules lie; by default of :class:`vtok.omnitokenizer.model.Encoding`."""
    name = Path(weights).name if is_published(weights) else WEIGHTS
    keys = {prefix: (prefix,) for prefix in prefixes}
    return Part(omni_location(weights), (name,), keys, cut=is_published(weights))


def save_folder(model: OmniTokenizer, folder: str | Path) -> None:
    """Writes a folder, which is created if it does not exist."""
    save_model(model, model.config, KIND, folder, WEIGHTS)
