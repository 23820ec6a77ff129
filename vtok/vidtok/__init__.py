"""VidTok (Tang et al., 2024): a family of video autoencoders, continuous and discrete."""

from pathlib import Path

from vtok.vidtok.checkpoint import load_weights
from vtok.vidtok.config import VidTokConfig, changed, published_config
from vtok.vidtok.model import VidTok

__all__ = ["VidTok", "VidTokConfig", "load_model", "published_config"]


def load_model(name_or_config: str | VidTokConfig, checkpoint: str | Path | None = None, **overrides) -> VidTok:
    """A VidTok, in fp32 on the CPU.

    Args:
        name_or_config: a published name, such as ``vidtok_kl_causal_488_4chn``, or a configuration.
        checkpoint: the published ``.ckpt`` or a ``.safetensors``; the weights are random if omitted.
        overrides: fields of :class:`VidTokConfig` that shall differ, such as ``ch=32``.

    Raises:
        ConfigError: no such name or field, or the checkpoint cannot be read or is of another model.
    """
    if isinstance(name_or_config, VidTokConfig):
        config = changed(name_or_config, **overrides)
    else:
        config = published_config(name_or_config, **overrides)
    model = VidTok(config)
    if checkpoint is not None:
        load_weights(model, checkpoint)
    return model
