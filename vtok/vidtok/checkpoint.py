"""Reads a VidTok's or a VidTwin's weights from Lightning checkpoints and safetensors."""

from pathlib import Path

import torch
from torch import nn

from vtok.config import ConfigError
from vtok.weights import open_file

# A Lightning checkpoint also stores the discriminator, the perceptual network and the averaged weights.
NOT_THE_MODEL = ("loss.", "model_ema.")


@torch.no_grad()
def load_weights(model: nn.Module, path: str | Path, ignored: tuple[str, ...] = NOT_THE_MODEL) -> None:
    """Copies the weights of a file into a model.

    Args:
        model: The model to fill, in place.
        path: A ``.safetensors``, or a Lightning ``.ckpt``. Only tensors are unpickled.
        ignored: Beginnings of the names of stored tensors that the model does not have.

    Raises:
        ConfigError: The file is unreadable, or a tensor is missing, surplus or of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no such checkpoint: {path}")
    stored = {name: tensor for name, tensor in open_file(path).items() if not name.startswith(ignored)}
    wanted = dict(model.named_parameters())
    for name in sorted(wanted.keys() | stored.keys()):
        expected = tuple(wanted[name].shape) if name in wanted else "nothing"
        found = tuple(stored[name].shape) if name in stored else "nothing"
        if expected != found:
            raise ConfigError(f"{path}: {name} should be {expected}, found {found}; is it another model's?")
    for name, parameter in wanted.items():
        stored[name].read_into(parameter.view(-1), 0)
