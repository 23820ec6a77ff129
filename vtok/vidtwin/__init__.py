"""VidTwin (Wang et al., CVPR 2025, arXiv 2412.17726): a video autoencoder with latents of structure and of dynamics."""

from pathlib import Path
from typing import TYPE_CHECKING

from vtok.vidtok.config import changed
from vtok.vidtwin.config import NAME, VidTwinConfig

if TYPE_CHECKING:
    from vtok.vidtwin.model import VidTwin

__all__ = ["NAME", "VidTwin", "VidTwinConfig", "load_model"]


def __getattr__(name: str) -> type["VidTwin"]:
    """Imports the network when it is first asked for: who only reads settings need not wait for torch."""
    if name != "VidTwin":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vtok.vidtwin.model import VidTwin

    return VidTwin


def load_model(checkpoint: str | Path | None = None, **overrides) -> "VidTwin":
    """Builds the published VidTwin in fp32 on the CPU.

    Args:
        checkpoint: The published ``.ckpt`` or a ``.safetensors``. Without it the weights are random.
        **overrides: Fields of :class:`VidTwinConfig` to change, such as ``depth=2``.

    Raises:
        ConfigError: A field cannot be, or the checkpoint is unreadable or of another model.
    """
    from vtok.vidtok.checkpoint import NOT_THE_MODEL, load_weights
    from vtok.vidtwin.model import UNUSED, VidTwin

    model = VidTwin(changed(VidTwinConfig(), **overrides))
    if checkpoint is not None:
        load_weights(model, checkpoint, NOT_THE_MODEL + UNUSED)
    return model
