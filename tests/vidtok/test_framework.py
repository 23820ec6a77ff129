"""A VidTok in the framework: as the decoder's latent space, and as the source of codes that the MLLM predicts."""

from dataclasses import replace

import pytest
import torch

from support.tiny import imagined, make_batch, model_config
from support.vidtok import random_video, small_model
from vtok.assembly import pretrained
from vtok.assembly.build import build_framework
from vtok.config import ConfigError, VisualHeadConfig
from vtok.generation import generate
from vtok.sampling import PLAIN
from vtok.video_decoder import build_vae
from vtok.vidtok.latent_space import save_folder


@pytest.fixture(scope="module", params=["vidtok_kl_causal_488_4chn", "vidtok_kl_causal_488_4chn_v1_1"])
def latent_space(request, tmp_path_factory):
    model = small_model(request.param, ch=8)
    folder = tmp_path_factory.mktemp("latents")
    save_folder(model, folder, scaling_factor=0.5)
    return model, folder


def with_latents(tiny_models, folder):
    config = model_config(tiny_models)
    return replace(config, decoder=replace(config.decoder, vae=str(folder)))


def test_the_decoder_s_loss_is_over_the_vidtok_s_latents(tiny_models, latent_space):
    model, folder = latent_space
    torch.manual_seed(0)
    framework = build_framework(with_latents(tiny_models, folder)).train()
    batch = make_batch(framework)
    posterior = framework.decoder.encode(batch.video)
    pixels = batch.video.movedim(1, 2) / 127.5 - 1
    torch.testing.assert_close(posterior.mean, model.encode(pixels), atol=1e-5, rtol=0)
    assert posterior.mean.shape == (4, 4, 3, 4, 4) and (posterior.std > 0).all()
    losses = framework(batch)
    losses["loss_dec"].backward()
    assert framework.mllm.causal_lm.model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in framework.decoder.vae.parameters())


def test_the_decoder_s_videos_are_the_vidtok_s(tiny_models, latent_space):
    """Sampled latents are divided by the scaling factor and decoded to 4k + 1 frames.

    This holds for a model that decodes to 4k + 4 frames too.
    """
    model, folder = latent_space
    torch.manual_seed(0)
    framework = build_framework(with_latents(tiny_models, folder)).eval()
    decoded = []
    decode = framework.decoder.vae.vidtok.decode
    framework.decoder.vae.vidtok.decode = lambda z: decoded.append(z) or decode(z)
    video = generate(framework, "A circle.", 1, steps=2, generator=torch.Generator().manual_seed(0))
    assert video.shape == (8, 3, 32, 32)
    expected = ((model.decode(decoded[0])[0, :, -9:] + 1) / 2).clamp(0, 1).movedim(0, 1)[:8]
    torch.testing.assert_close(video.float() / 255, expected, atol=1 / 255, rtol=0)


def test_the_vae_alone_loads_for_precomputing(tiny_models, latent_space):
    model, folder = latent_space
    vae = build_vae(with_latents(tiny_models, folder).decoder)
    x = random_video(5)
    torch.testing.assert_close(vae.encode(x).latent_dist.mean, model.encode(x))
    torch.testing.assert_close(vae.decode(model.encode(x))[0], model(x)[1])


def test_vidtoks_that_cannot_be_a_latent_space_are_refused(tiny_models, tmp_path):
    for name, message, changes in (
        ("vidtok_kl_causal_488_8chn", "reads latents of 4 channels, its vae gives 8", {}),
        ("vidtok_kl_causal_288_8chn", "4k \\+ 1 frames, but its vae has 2 frames to a latent frame", {"z_channels": 4}),
        ("vidtok_kl_noncausal_488_4chn", "use a causal one", {}),
        ("vidtok_fsq_causal_488_4096", "with the regulariser kl", {}),
    ):
        save_folder(small_model(name, ch=8, **changes), tmp_path / name)
        with pytest.raises(ConfigError, match=message):
            build_framework(with_latents(tiny_models, tmp_path / name))
    with pytest.raises(ConfigError, match="is of a 'AutoencoderKLHunyuanVideo', not a VidTokAutoencoder"):
        build_framework(with_latents(tiny_models, f"{tiny_models}/hunyuan/vae"))


# ---------------------------------------------------------------- codes

NAME = "vidtok_fsq_causal_41616_262144"


@pytest.fixture(scope="module")
def coder(tmp_path_factory):
    """A VidTok whose code covers 16 x 16 pixels: 4 x 4 codes are a frame of 64 pixels a side."""
    model = small_model(NAME, ch=8)
    folder = tmp_path_factory.mktemp("codes")
    save_folder(model, folder)
    return model, folder


@pytest.fixture
def coding_framework(tiny_models, coder):
    config = model_config(tiny_models, visual_head=VisualHeadConfig(kind="codes"))
    config.tokeniser = replace(config.tokeniser, backbone="vidtok", weights=str(coder[1]))
    torch.manual_seed(0)
    return build_framework(config).train()


def index_of(digits: torch.Tensor) -> torch.Tensor:
    return (digits * 8 ** torch.arange(digits.shape[-1])).sum(-1)


def test_spatial_tokens_targets_are_the_vidtok_s_codes_of_the_key_frame(coding_framework, coder):
    model, framework = coder[0], coding_framework
    batch = make_batch(framework)
    for scale in framework.tokeniser.feature_scale.values():  # what calibration does before the first step
        scale.set(torch.randn_like(scale.mean), torch.rand_like(scale.std) + 1)
    features = framework.features(batch)
    target = framework.tokeniser.feature_scale["spatial"].standardise(features.spatial)
    key_frames = (batch.frames[:, 0] / 127.5 - 1).unsqueeze(2)
    _, reg_log = model.encode(key_frames, return_reg_log=True)
    digits = framework.visual_head["spatial"].cells.quantise(target)
    assert torch.equal(index_of(digits), reg_log["indices"].flatten(1).long())
    assert digits.unique().numel() > 2


def test_codes_are_learned_and_sampled(coding_framework, coder):
    model, framework = coder[0], coding_framework
    losses = framework(make_batch(framework))
    losses["loss"].backward()
    assert losses["loss_vis_lm"].isfinite()
    assert framework.visual_head["spatial"].linear.weight.grad.abs().sum() > 0
    head = framework.visual_head["spatial"]
    sampled = head.sample(torch.randn(16, framework.mllm.dim), PLAIN, torch.Generator().manual_seed(0))
    codes = model.regularization.quantise(sampled)
    torch.testing.assert_close(
        index_of(head.cells.quantise(sampled)).int(), model.regularization.codes_to_indices(codes)
    )
    conditioning = imagined(framework.eval(), "A circle.", 3, generator=torch.Generator().manual_seed(0))
    assert conditioning.rows.isfinite().all()


def test_the_loss_is_the_cross_entropy_of_the_codes(coding_framework, coder):
    framework, model = coding_framework, coder[0]
    head, z, hidden = framework.visual_head["motion"], torch.randn(7, 6), torch.randn(7, framework.mllm.dim)
    logits = head.linear(hidden).view(7, 6, 8).log_softmax(-1)
    codes = ((model.regularization.quantise(z) * 4) + 4).long()
    expected = -logits.gather(-1, codes.unsqueeze(-1)).squeeze(-1).mean(-1)
    torch.testing.assert_close(head.loss(hidden, z), expected)


def test_an_exported_framework_still_names_its_vidtoks(coding_framework, coder, tmp_path, monkeypatch):
    framework = coding_framework.eval()
    pretrained.save_pretrained(framework, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    loaded = pretrained.from_pretrained(tmp_path / "out").eval()
    frames = torch.randint(0, 256, (1, 5, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(loaded.tokeniser(frames), framework.tokeniser(frames))


def test_a_vidtok_whose_codes_do_not_fit_is_refused(tiny_models, latent_space):
    config = model_config(tiny_models)
    config.tokeniser = replace(config.tokeniser, backbone="vidtok", weights=str(latent_space[1]))
    with pytest.raises(ConfigError, match="the backbone vidtok takes a causal VidTok with fsq"):
        build_framework(config)
    with pytest.raises(ConfigError, match="the backbone vidtok needs tokeniser.weights"):
        replace(config.tokeniser, weights=None)
