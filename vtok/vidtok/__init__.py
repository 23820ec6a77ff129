"""VidTok (Tang et al., 2024, arXiv 2412.13061): a family of video autoencoders, continuous and discrete."""

from pathlib import Path
from typing import TYPE_CHECKING

from vtok.vidtok.config import VidTokConfig, changed, published_config

if TYPE_CHECKING:
    from vtok.vidtok.model import VidTok

__all__ = ["VidTok", "VidTokConfig", "load_model", "published_config"]


def __getattr__(name: str) -> type["VidTok"]:
    """Imports the network when it is first asked for: who only reads settings need not wait for torch."""
    if name != "VidTok":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vtok.vidtok.model import VidTok

    return VidTok


def load_model(name_or_config: str | VidTokConfig, checkpoint: str | Path | None = None, **overrides) -> "VidTok":
    """Builds a VidTok in fp32 on the CPU.

    Args:
        name_or_config: A published name, such as ``vidtok_kl_causal_488_4chn``, or a configuration.
        checkpoint: The published ``.ckpt`` or a ``.safetensors``. Without it the weights are random.
        **overrides: Fields of :class:`VidTokConfig` to change, such as ``ch=32``.

    Raises:
        ConfigError: The name or a field does not exist, or the checkpoint is unreadable or of another model.
    """
    from vtok.vidtok.checkpoint import load_weights
    from vtok.vidtok.model import VidTok

    if isinstance(name_or_config, VidTokConfig):
        config = changed(name_or_config, **overrides)
    else:
        config = published_config(name_or_config, **overrides)
    model = VidTok(config)
    if checkpoint is not None:
        load_weights(model, checkpoint)
    return model
