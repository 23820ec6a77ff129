"""VidTok (Tang et al., 2024, arXiv 2412.13061): a family of video autoencoders, continuous and discrete."""

from pathlib import Path

from vtok.vidtok.checkpoint import load_weights
from vtok.vidtok.config import VidTokConfig, changed, published_config
from vtok.vidtok.model import VidTok

__all__ = ["VidTok", "VidTokConfig", "load_model", "published_config"]


def load_model(name_or_config: str | VidTokConfig, checkpoint: str | Path | None = None, **overrides) -> VidTok:
    """Builds a VidTok in fp32 on the CPU.

    Args:
        name_or_config: A published name, such as ``vidtok_kl_causal_488_4chn``, or a configuration.
        checkpoint: The published ``.ckpt`` or a ``.safetensors``. Without it the weights are random.
        **overrides: Fields of :class:`VidTokConfig` to change, such as ``ch=32``.

    Raises:
        ConfigError: The name or a field does not exist, or the checkpoint is unreadable or of another model.
    """
    if isinstance(name_or_config, VidTokConfig):
        config = changed(name_or_config, **overrides)
    else:
        config = published_config(name_or_config, **overrides)
    model = VidTok(config)
    if checkpoint is not None:
        load_weights(model, checkpoint)
    return model
