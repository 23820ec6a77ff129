"""Weights of a VidTok, from the published Lightning files or from safetensors, and to safetensors."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from vtok.config import ConfigError
from vtok.vidtok.model import VidTok
from vtok.weights import open_file

# Of a training run, beside the model's own: discriminator, perceptual network, average of the weights.
NOT_THE_MODEL = ("loss.", "model_ema.")


@torch.no_grad()
def load_weights(model: VidTok, path: str | Path) -> None:
    """Fill a model.

    Args:
        path: ``.safetensors``, or a Lightning ``.ckpt``, of which nothing but tensors is unpickled.

    Raises:
        ConfigError: the file cannot be read, or its tensors are not those of this model.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no such checkpoint: {path}")
    stored = {name: tensor for name, tensor in open_file(path).items() if not name.startswith(NOT_THE_MODEL)}
    wanted = dict(model.named_parameters())
    for name in sorted(wanted.keys() | stored.keys()):
        shapes = [tuple(tensors[name].shape) if name in tensors else "nothing" for tensors in (wanted, stored)]
        if shapes[0] != shapes[1]:
            raise ConfigError(f"{path}: {name} should be {shapes[0]}, found {shapes[1]}; is it another model's?")
    for name, parameter in wanted.items():
        stored[name].read_into(parameter.view(-1), 0)


def save_weights(model: VidTok, path: str | Path) -> None:
    """Write a ``.safetensors`` with the published names."""
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
