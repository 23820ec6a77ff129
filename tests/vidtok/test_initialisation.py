"""The initial weights: the signal keeps its variance, and noise does not drown it."""

import pytest
import torch
from torch import nn

from vtok.vidtok import VidTok, load_model
from vtok.vidtok.initialisation import LOG_VARIANCE, initialise
from vtok.vidtok.stream import Stream


def initialised(name: str, **overrides) -> VidTok:
    torch.manual_seed(0)
    model = load_model(name, ch=16, **overrides)
    initialise(model)
    return model.eval()


@pytest.mark.parametrize("name", ["vidtok_kl_causal_488_4chn", "vidtok_kl_noncausal_488_4chn"])
def test_latents_begin_with_little_noise_and_depend_on_the_clip(name):
    model = initialised(name)
    x = torch.randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        moments = model.moments(x)
    mean, log_variance = moments.chunk(2, -1)
    assert (log_variance - LOG_VARIANCE).mean().abs() < 0.2
    # Only what varies between clips counts: a decoder can learn from nothing else.
    assert (mean[0] - mean[1]).std() > 10 * (0.5 * log_variance).exp().mean()


def test_blocks_begin_as_the_identity_and_convolutions_keep_the_variance():
    model = initialised("vidtok_kl_noncausal_488_4chn")
    x = torch.randn(1, 4, 16, 16, 16)
    for block in (model.encoder.down[0].block[0], model.encoder.down_temporal[0].block[0]):
        assert torch.equal(block(x, Stream()), x)
    for layer in (model.encoder.down[0].block[0].conv1, model.encoder.down[1].block[0].nin_shortcut):
        assert layer(x).var().item() == pytest.approx(x.var().item(), rel=0.3) and not layer.bias.any()


def test_fsq_and_norms_and_blends_stay_as_they_are_built():
    built, drawn = load_model("vidtok_fsq_causal_488_4096", ch=16), initialised("vidtok_fsq_causal_488_4096")
    ones = {name: p for name, p in built.named_parameters() if "norm" in name or "mix_factor" in name}
    assert ones and all(torch.equal(drawn.get_parameter(name), p) for name, p in ones.items())
    assert all(not layer.bias.any() for layer in drawn.modules() if isinstance(layer, nn.Conv3d))
