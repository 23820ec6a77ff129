"""The VidTok that a command's ``--config`` and ``--checkpoint`` name.

model:
  name: vidtok_kl_causal_488_4chn
  ch: 32                             # a field of vtok.vidtok.VidTokConfig that differs from the published one
"""

from pathlib import Path
from typing import Any

from pipelines.config_files import PRESETS, read_yaml
from vtok.config import ConfigError, require
from vtok.vidtok import VidTok, VidTokConfig, load_model, published_config


def vidtok_yaml(config: str | Path) -> Path:
    """A YAML file, or by its name one of those in ``pipelines/configs/vidtok``; raises ConfigError if there is none."""
    path = Path(config)
    if path.suffix:
        return path
    path = PRESETS / "vidtok" / f"{config}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise ConfigError(f"no VidTok is called {config!r}: give a YAML file or one of {known}")
    return path


def read_vidtok_config(config: str | Path) -> VidTokConfig:
    """From a YAML file or by its name.

    Raises:
        ConfigError: there is none, or its ``model`` section is not understood.
    """
    path = vidtok_yaml(config)
    model = read_yaml(path).get("model")
    require(isinstance(model, dict) and "name" in model, f"{path} should have a section 'model' with a 'name'")
    return config_of(model)


def config_of(model: dict[str, Any]) -> VidTokConfig:
    """Of a ``model`` section; raises ConfigError as :func:`vtok.vidtok.published_config`."""
    return published_config(**{key: tuple(value) if isinstance(value, list) else value for key, value in model.items()})


def load_vidtok(config: str | Path, checkpoint: str | Path | None) -> VidTok:
    """For inference; raises ConfigError as :func:`read_vidtok_config` and :func:`vtok.vidtok.load_model`."""
    return load_model(read_vidtok_config(config), checkpoint).eval()


def in_tiles(model: VidTok, tile: int, overlap: int) -> VidTok:
    """``model`` with as little memory as it can do with for tiles of so many pixels: one latent frame at a time."""
    model.tile, model.tile_overlap = tile, overlap
    model.use_tiling, model.t_chunk_enc, model.t_chunk_dec = True, model.config.time_factor, 1
    return model
