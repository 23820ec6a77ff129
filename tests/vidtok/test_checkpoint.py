"""Loading weights from Lightning checkpoints and safetensors, and saving them."""

import pytest
import torch

from support.vidtok import small_model
from vtok.config import ConfigError
from vtok.vidtok import load_model
from vtok.weights.own_folder import save_weights

NAME = "vidtok_fsq_causal_488_32768"


def lightning_file(path, model, **more):
    """Writes a checkpoint in Lightning's form. It also holds weights of the losses and averaged weights."""
    state = dict(model.state_dict())
    state |= {name: torch.ones(2) for name in ("loss.logvar", "loss.discriminator.conv.weight", "model_ema.decay")}
    torch.save({"epoch": 3, "global_step": 7, "state_dict": state, "optimizer_states": [{}], **more}, path)
    return path


def same(one, other) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_published_checkpoint_loads(tmp_path):
    model = small_model(NAME, ch=8)
    loaded = load_model(NAME, lightning_file(tmp_path / "x.ckpt", model), ch=8)
    assert same(model, loaded) and not same(model, load_model(NAME, ch=8))


def test_what_is_saved_loads_again(tmp_path):
    model = small_model(NAME, ch=8)
    save_weights(model, tmp_path / "x.safetensors")
    assert same(model, load_model(NAME, tmp_path / "x.safetensors", ch=8))


class Sneaky:
    def __reduce__(self):
        return print, ("unpickled",)


def test_nothing_is_executed(tmp_path, capsys):
    path = lightning_file(tmp_path / "x.ckpt", small_model(NAME, ch=8), callbacks=Sneaky())
    with pytest.raises(ConfigError, match="is not a PyTorch checkpoint"):
        load_model(NAME, path, ch=8)
    assert "unpickled" not in capsys.readouterr().out


def test_another_model_s_weights_are_refused(tmp_path):
    path = lightning_file(tmp_path / "x.ckpt", small_model(NAME, ch=8))
    with pytest.raises(ConfigError, match=r"conv.bias should be \(64,\), found \(32,\)"):
        load_model(NAME, path, ch=16)
    with pytest.raises(ConfigError, match="no such checkpoint"):
        load_model(NAME, tmp_path / "y.ckpt")
