"""Parameter names, sizes and outputs of the published architectures, with random weights."""

import pytest
import torch
from torch import nn

from pipelines.benchmarks.vidtok_plain import PlainVidTok
from pipelines.vidtok_training.models import read_vidtok_config
from support.vidtok import DIFFERENT, PUBLISHED, random_video, small_model
from vtok.config import ConfigError
from vtok.vidtok import config, load_model, published_config


def meta_model(name: str):
    with torch.device("meta"):
        return load_model(name)


def millions(module: nn.Module) -> float:
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 2)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    entries, encoder, decoder = PUBLISHED[name]
    model = meta_model(name)
    assert len(model.state_dict()) == entries
    if encoder is not None:
        assert (millions(model.encoder), millions(model.decoder)) == (encoder, decoder)


def test_commands_take_each_published_name():
    assert set(config.PUBLISHED) == PUBLISHED.keys()
    for name in PUBLISHED:
        assert read_vidtok_config(name) == published_config(name)


def test_published_keys():
    """Layers over time have a wrapper in causal models. Layers over space and non-causal models have none."""
    causal = {key: tuple(value.shape) for key, value in meta_model("vidtok_kl_causal_488_4chn").state_dict().items()}
    expected = {
        "encoder.conv_in.conv.weight": (128, 3, 3, 3, 3),
        "encoder.down.1.block.0.norm1.norm.weight": (128,),
        "encoder.down.1.block.0.conv1.weight": (256, 128, 3, 3),
        "encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.down.0.downsample.conv.weight": (128, 128, 3, 3),
        "encoder.down_temporal.1.block.1.conv2.conv.bias": (256,),
        "encoder.down_temporal.1.block.1.conv2.conv.weight": (256, 256, 3),
        "encoder.down_temporal.2.downsample.conv.conv.weight": (512, 512, 3, 3, 3),
        "encoder.down_temporal.2.downsample.mix_factor": (1,),
        "encoder.mid.block_1.conv1.conv.weight": (512, 512, 3, 3, 3),
        "encoder.mid.attn_1.norm.norm.bias": (512,),
        "encoder.mid.attn_1.q.conv.weight": (512, 512, 1, 1, 1),
        "encoder.mid.attn_1.proj_out.conv.weight": (512, 512, 1, 1, 1),
        "encoder.norm_out.norm.weight": (512,),
        "encoder.conv_out.conv.weight": (8, 512, 3, 3, 3),
        "decoder.conv_in.conv.weight": (512, 4, 3, 3, 3),
        "decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
        "decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        "decoder.up_temporal.2.upsample.conv.conv.weight": (512, 512, 3, 3, 3),
        "decoder.up_temporal.1.upsample.mix_factor": (1,),
        "decoder.conv_out.conv.weight": (3, 128, 3, 3, 3),
    }
    assert {key: causal.get(key) for key in expected} == expected
    plain = {key.replace(".conv.conv.", ".conv.") for key in causal}
    for wrapped in ("conv_in", "conv_out", "q", "k", "v", "proj_out"):
        plain = {key.replace(f".{wrapped}.conv.", f".{wrapped}.") for key in plain}
    plain = {key.replace("1.conv.", "1.").replace("2.conv.", "2.") for key in plain}
    assert set(meta_model("vidtok_kl_noncausal_488_4chn").state_dict()) == plain


def test_a_new_model_does_nothing_over_time():
    model = load_model("vidtok_kl_causal_488_4chn", ch=8)
    assert not any(block.conv2.conv.weight.any() for level in model.encoder.down_temporal for block in level.block)
    assert model.encoder.down_temporal[1].downsample.mix_factor.item() == 2.0


@pytest.mark.parametrize("name", DIFFERENT)
@torch.no_grad()
def test_equal_to_the_plain_arrangement(name):
    model = small_model(name)
    plain = PlainVidTok(model)
    for frames in [4, 16] if "noncausal" in name else [1, 2, 3, 5, 7, 8, 17]:
        x = random_video(frames, batch=2)
        moments = plain.encode(x)
        torch.testing.assert_close(model.moments(x).movedim(-1, 1), moments, atol=1e-4, rtol=0)
        z = model.encode(x)
        torch.testing.assert_close(model.decode(z), plain.decode(z), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name, frames", [(DIFFERENT[0], 5), (DIFFERENT[1], 5), (DIFFERENT[2], 8)])
def test_gradients_are_those_of_the_plain_arrangement(name, frames):
    model = small_model(name, ch=8)
    x, gradients = random_video(frames), []
    for run in (lambda: model.decode(model.encode(x)), lambda: plain_pass(PlainVidTok(model), x)):
        model.zero_grad()
        run().square().mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-3, msg=name)


def plain_pass(plain: PlainVidTok, x: torch.Tensor) -> torch.Tensor:
    return plain.decode(plain.encode(x).chunk(2, dim=1)[0])


@pytest.mark.parametrize(
    "name, shape",
    [
        ("vidtok_kl_causal_488_4chn", (4, 5, 32, 32)),
        ("vidtok_kl_causal_288_8chn_v1_1", (8, 9, 32, 32)),
        ("vidtok_kl_causal_444_4chn", (4, 5, 64, 64)),
        ("vidtok_fsq_causal_41616_262144", (6, 5, 16, 16)),
        ("vidtok_fsq_causal_888_32768_v1_1", (5, 3, 32, 32)),
    ],
)
@torch.no_grad()
def test_latents_of_17_frames_of_256_pixels(name, shape):
    with torch.device("meta"):
        model = load_model(name).eval()
        z, reg_log = model.encode(torch.empty(1, 3, 17, 256, 256), return_reg_log=True)
        assert z.shape == (1, *shape)
        assert "indices" not in reg_log or reg_log["indices"].shape == (1, *shape[1:])


@torch.no_grad()
def test_the_published_way_of_use():
    model, x = small_model("vidtok_fsq_causal_488_32768"), random_video(17)
    z, reg_log = model.encode(x, return_reg_log=True)
    from_codes = model.decode(reg_log["indices"], decode_from_indices=True)
    torch.testing.assert_close(from_codes, model.decode(z))
    latent, x_recon, log = model(x)
    assert torch.equal(latent, z) and torch.equal(x_recon, from_codes) and log.keys() == {"indices", "aux_loss"}
    assert model.is_causal and model.encoder.time_downsample_factor == 4
    assert (model.use_tiling, model.t_chunk_enc, model.t_chunk_dec, model.tile) == (False, 16, 4, None)
    assert not load_model("vidtok_kl_noncausal_488_4chn", ch=8).is_causal


@pytest.mark.parametrize("name", ["vidtok_kl_causal_488_4chn", "vidtok_fsq_causal_488_32768_v1_1"])
@torch.no_grad()
def test_under_autocast_as_the_published_examples_use_it(name):
    model, x = small_model(name), random_video(17)
    z = model.encode(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, frames = model.encode(x), model.decode(z)
    assert (frames.float() - model.decode(z)).abs().max() < 0.1 and frames.dtype == torch.bfloat16
    assert ((low.float() - z).abs() < 0.1).float().mean() > 0.9  # rounding may move a latent near a cell's edge


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: load_model("vidtok_kl_causal_488_32768x"), "is not the name of a VidTok"),
        (lambda: load_model("vidtok_kl_causal_488_32768"), "kl takes channels"),
        (lambda: load_model("vidtok_fsq_causal_488_1000"), "a power of 8 codes, not 1000"),
        (lambda: load_model("vidtok_kl_causal_488_4chn", chan=8), "no setting chan; did you mean ch"),
        (lambda: load_model("vidtok_kl_causal_488_4chn", ch_mult=(1, 2)), "levels of ch_mult, 0 to 1"),
        (lambda: load_model("vidtok_kl_causal_488_4chn", tempo_ds=(1,)), "must have equally many levels"),
        (lambda: load_model("vidtok_kl_causal_444_4chn", tempo_ds=(0, 1)), "tempo_ds should be among spatial_ds"),
        (lambda: small_model("vidtok_kl_causal_488_4chn").encode(random_video(5, 36)), "multiples of 8, not 36x36"),
        (lambda: small_model("vidtok_kl_noncausal_488_4chn").encode(random_video(5)), "a multiple of 4 frames, not 5"),
        (lambda: small_model("vidtok_kl_causal_488_4chn").decode(torch.zeros(1, 1, 4, 4), True), "from indices"),
        (lambda: read_vidtok_config("vidtok_kl"), "no VidTok is called 'vidtok_kl': give a YAML file or one of v"),
    ],
)  # fmt: skip
def test_mistakes_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.long
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_blocks_give_the_same(backend, monkeypatch):
    """Also chunk by chunk; the parameters keep their names."""
    for name in ("_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR", "TORCH_WARM_POOL"):  # which inductor sets
        monkeypatch.setenv(name, "0")
    model, x = small_model("vidtok_kl_causal_488_4chn_v1_1", ch=8, num_res_blocks=1), random_video(9)
    names = list(model.state_dict())
    with torch.no_grad():
        expected = model(x)[1]
        model.compile_blocks(backend)
        torch.testing.assert_close(model(x)[1], expected, atol=1e-4, rtol=0)
        chunks = torch.cat(list(model.reconstruct(x.split(4, dim=2), 9)), dim=2)
    torch.testing.assert_close(chunks, expected, atol=1e-4, rtol=0)
    assert list(model.state_dict()) == names
