"""The folder of a motion codec.

    FOLDER/config.json, motion_codec.safetensors        written by :func:`save_folder`

The tokeniser's ``codec`` names such a folder.
"""

from pathlib import Path

import torch
from torch import Tensor

from vtok.config import VTokConfig
from vtok.motion_codec.config import MotionCodecConfig, codec_config
from vtok.motion_codec.model import MotionCodec, MotionTokens
from vtok.weights import Location, Part, ReadConfig
from vtok.weights.field_types import require_types
from vtok.weights.materialise import materialise, whole
from vtok.weights.own_folder import CONFIG, save_model

WEIGHTS, KIND = "motion_codec.safetensors", "MotionCodec"


def codec_location(folder: str) -> Location:
    """Returns where a codec lies."""
    return Location("motion codec", "tokeniser.codec", folder)


def stored_config(folder: str, read_config: ReadConfig = Location.read_json) -> MotionCodecConfig:
    """Reads the sizes of a codec; raises ConfigError if the folder holds another model or none."""
    where = codec_location(folder)
    stored = dict(read_config(where, CONFIG))
    if stored.pop("_class_name", None) != KIND:
        raise where.error("its config.json is of another model: pipelines/train_motion_codec.py writes such folders")
    require_types(where, CONFIG, MotionCodecConfig, stored)
    with where.building(CONFIG):
        return codec_config({"form": "published"} | stored)


def codec_part(folder: str) -> Part:
    """Returns where the weights of :class:`MotionTokens` lie."""
    return Part(codec_location(folder), (WEIGHTS,), {"encoder.": ("encoder.",), "codebook.": ("codebook.",)})


def empty_motion_tokens(config: VTokConfig, read_config: ReadConfig = Location.read_json) -> MotionTokens:
    """Builds the frozen half of a codec: on the meta device, or with random values if there is no folder."""
    if config.codec is None:
        return MotionTokens(codec_config(config.codec_config))
    with torch.device("meta"):
        return MotionTokens(stored_config(config.codec, read_config))


def load_codec(folder: str | Path) -> MotionCodec:
    """Loads a whole codec, in fp32 on the CPU, for evaluation.

    Raises:
        ConfigError: The folder holds no codec.
    """
    with torch.device("meta"):
        codec = MotionCodec(stored_config(str(folder)))
    part = Part(codec_location(str(folder)), (WEIGHTS,), {"": ("",)})
    return materialise(codec, [part], whole()).requires_grad_(False).eval()


def stored_codebook(folder: str) -> Tensor:
    """Reads the vectors of a codec's codes, (K, D) fp32, not normalised; raises ConfigError if there are none."""
    stored = codec_part(folder).open()["codebook.weight"]
    values = torch.empty(stored.shape, device="cpu")
    stored.read_into(values.view(-1), 0)
    return values


def save_folder(codec: MotionCodec, folder: str | Path) -> None:
    """Writes a folder, which is created if it does not exist."""
    save_model(codec, codec.config, KIND, folder, WEIGHTS)
