"""Adds axes to the study's autoencoder, and channels for them to its decoder.

Both keep what they had: the first axes are the study's, and the decoder treats their channels as before.
"""

import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch import Tensor

from vtok.video_decoder.patch_autoencoder import PatchAutoencoder

QUIET = 0.3  # size of a new channel's weights, relative to those of an orthogonal matrix


@torch.no_grad()
def wider_autoencoder(narrow: PatchAutoencoder, channels: int, blocks: Tensor) -> PatchAutoencoder:
    """Adds the principal axes that an autoencoder lacks. Their scales follow the autoencoder's rule.

    Args:
        narrow: The autoencoder.
        channels: Number of axes of the result.
        blocks: Blocks of clips, (n, size).
    """
    fitted = PatchAutoencoder(latent_channels=channels)
    fitted.fit(blocks)
    old, new = narrow.axes.double(), fitted.axes.double()
    outside = new - new @ old.T @ old
    rest = torch.linalg.svd(outside, full_matrices=False).Vh[: channels - len(old)]
    rest = torch.linalg.qr((rest - rest @ old.T @ old).T).Q.T
    centred = blocks - narrow.mean
    along = centred @ rest.T.to(centred)
    rest = torch.linalg.eigh(torch.cov(along.double().T)).eigenvectors.T.flip(0) @ rest  # largest variance first
    deviation = (centred @ rest.T.to(centred)).std(0).double()
    overall = (narrow.scale.double() ** 2 / (centred @ narrow.axes.T).std(0).double()).median()
    wide = PatchAutoencoder(latent_channels=channels)
    wide.mean.copy_(narrow.mean)
    wide.axes.copy_(torch.cat([old, rest]))
    wide.scale.copy_(torch.cat([narrow.scale.double(), (deviation * overall).sqrt()]))
    return wide


@torch.no_grad()
def wider_decoder(narrow: HunyuanVideoTransformer3DModel, channels: int, seed: int) -> HunyuanVideoTransformer3DModel:
    """Adds latent channels to a decoder. Their weights use the directions that the old channels use least.

    Args:
        narrow: The decoder.
        channels: Latent channels of the result, at most three times as many if the decoder is four times as wide.
        seed: Seed of the initial weights of the result, which this function overwrites.
    """
    torch.manual_seed(seed)
    wide = HunyuanVideoTransformer3DModel.from_config(narrow.config, in_channels=channels, out_channels=channels)
    old, own = narrow.config.in_channels, narrow.state_dict()
    first, last = "x_embedder.proj.weight", "proj_out.weight"
    used = torch.cat([own[first].flatten(1).T, own[last]])
    unused = torch.linalg.svd(used).Vh[2 * old : 2 * old + channels - old]
    state = wide.state_dict()
    for name, value in own.items():
        if state[name].shape == value.shape:
            state[name].copy_(value)
    state[first].flatten(1)[:, :old] = own[first].flatten(1)
    state[first].flatten(1)[:, old:] = QUIET * unused.T
    state[last][:old], state[last][old:] = own[last], QUIET * unused
    state["proj_out.bias"][:old], state["proj_out.bias"][old:] = own["proj_out.bias"], 0
    wide.load_state_dict(state)
    return wide
