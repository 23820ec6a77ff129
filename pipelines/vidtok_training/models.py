"""Loads the VidTok that a command's ``--config`` and ``--checkpoint`` name.

``--config`` is a published name, or a YAML file such as

model:
  name: vidtok_kl_causal_488_4chn
  ch: 32                             # changes a field of vtok.vidtok.VidTokConfig
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli.config_files import read_yaml
from vtok.config import require
from vtok.vidtok import VidTokConfig, load_model, published_config
from vtok.vidtok.config import PUBLISHED

if TYPE_CHECKING:
    from vtok.vidtok import VidTok


def published_name(name: str) -> str:
    """Returns ``name``.

    Raises:
        ConfigError: No published VidTok has this name.
    """
    require(name in PUBLISHED, f"no VidTok is called {name!r}: give a YAML file or one of {', '.join(PUBLISHED)}")
    return name


def read_vidtok_config(config: str | Path) -> VidTokConfig:
    """Returns the configuration of a YAML file or of a published name.

    Args:
        config: Path of a YAML file with a section ``model``. A text without a suffix is a published name.

    Raises:
        ConfigError: The file or the name does not exist, or the section ``model`` is invalid.
    """
    path = Path(config)
    if not path.suffix:
        return published_config(published_name(str(config)))
    model = read_yaml(path).get("model")
    require(isinstance(model, dict) and "name" in model, f"{path} should have a section 'model' with a 'name'")
    return config_of(model)


def config_of(model: dict[str, Any]) -> VidTokConfig:
    """Returns the configuration of a section ``model``: ``name``, and the fields to change.

    Raises:
        ConfigError: The name is malformed, or a field does not exist.
    """
    return published_config(**{key: tuple(value) if isinstance(value, list) else value for key, value in model.items()})


def load_vidtok(config: str | Path, checkpoint: str | Path | None) -> "VidTok":
    """Loads a VidTok for inference, in fp32 on the CPU.

    Args:
        config: See :func:`read_vidtok_config`.
        checkpoint: See :func:`vtok.vidtok.load_model`.

    Raises:
        ConfigError: The configuration or the checkpoint is wrong.
    """
    return load_model(read_vidtok_config(config), checkpoint).eval()


def in_tiles(model: "VidTok", tile: int, overlap: int) -> "VidTok":
    """Sets a model to work in tiles and one latent frame at a time, which takes the least memory; returns the model.

    Args:
        model: The model; changed in place.
        tile: Side of a tile in pixels.
        overlap: Overlap of neighbouring tiles in pixels.
    """
    model.tile, model.tile_overlap = tile, overlap
    model.use_tiling, model.t_chunk_enc, model.t_chunk_dec = True, model.config.time_factor, 1
    return model
