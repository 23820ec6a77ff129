"""A linear autoencoder in the place of HunyuanVideo's."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from support.tiny import model_config
from vtok.assembly.build import build_framework
from vtok.generation import generate
from vtok.video_decoder import build_vae, decode_video, encode_video
from vtok.video_decoder.patch_autoencoder import PatchAutoencoder


def videos(count=6, seed=0):
    """Smooth random videos, (count, 9, 3, 32, 32) ``uint8``."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 3, 4, 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (9, 32, 32), mode="trilinear", align_corners=True)
    return (fine.transpose(1, 2) * 255).to(torch.uint8)


def fitted(channels=24):
    vae = PatchAutoencoder(latent_channels=channels)
    vae.fit(vae.blocks(videos(64).transpose(1, 2) / 127.5 - 1).flatten(0, -2))
    return vae


@torch.no_grad()
def test_what_lies_on_the_kept_axes_comes_back():
    vae = fitted(24)
    z = 0.05 * torch.randn(6, 24, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    video = vae.decode(z).sample
    assert video.shape == (6, 3, 9, 32, 32) and video.abs().max() < 1
    posterior = vae.encode(video).latent_dist
    torch.testing.assert_close(posterior.mean[:, :, 1:], z[:, :, 1:], atol=1e-4, rtol=0)
    assert posterior.std.max() < 1e-6


@torch.no_grad()
def test_more_axes_lose_less():
    pixels = videos(6, seed=1).transpose(1, 2) / 127.5 - 1
    errors = []
    for channels in (4, 24):
        vae = fitted(channels)
        errors.append((vae.decode(vae.encode(pixels).latent_dist.mean).sample - pixels).square().mean())
    assert errors[1] < 0.1 * errors[0]


@torch.no_grad()
def test_all_axes_lose_nothing_and_the_first_frame_stands_alone():
    vae = PatchAutoencoder(latent_channels=768)
    pixels = videos(2).transpose(1, 2) / 127.5 - 1
    torch.testing.assert_close(vae.decode(vae.encode(pixels).latent_dist.mean).sample, pixels, atol=1e-5, rtol=0)
    still = vae.encode(pixels[:, :, :1]).latent_dist.mean
    torch.testing.assert_close(still, vae.encode(pixels).latent_dist.mean[:, :, :1])


def test_a_video_comes_back_as_bytes_and_what_is_too_bright_is_white():
    vae, frames = PatchAutoencoder(latent_channels=768), videos(2)
    latents = encode_video(vae, frames).mean
    assert torch.equal(decode_video(vae, latents), frames)
    louder = SimpleNamespace(dtype=vae.dtype, decode=lambda z, return_dict: (3 * vae.decode(z).sample,))
    far = decode_video(louder, latents)
    assert torch.equal(far, ((frames.float() / 127.5 - 1) * 3).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8))


@torch.no_grad()
def test_the_decoder_takes_it_from_a_folder(tiny_models, tmp_path):
    """Its class is what the folder's configuration names; training and sampling go through it."""
    shutil.copytree(tiny_models / "hunyuan", tmp_path / "hunyuan")
    shutil.rmtree(tmp_path / "hunyuan" / "vae")
    vae = fitted(4)
    vae.save_pretrained(tmp_path / "hunyuan" / "vae")
    config = model_config(tiny_models)
    config.decoder.weights = str(tmp_path / "hunyuan")
    loaded = build_vae(config.decoder)
    assert torch.equal(encode_video(loaded, videos(2)).mean, encode_video(vae, videos(2)).mean)
    framework = build_framework(config).eval()
    assert isinstance(framework.decoder.vae, PatchAutoencoder)
    video = generate(framework, "A red circle", 1.0, 8, steps=2, generator=torch.Generator().manual_seed(0))
    assert video.shape == (8, 3, 32, 32) and video.float().std() > 0


def test_axes_are_scaled_between_their_deviation_and_none():
    vae = fitted(8)
    with torch.no_grad():
        latents = vae.encode(videos(64).transpose(1, 2) / 127.5 - 1).latent_dist.mean
    deviation, scale = latents.std((0, 2, 3, 4)), vae.scale.detach()
    # A latent's deviation is its axis' own over the scale: both are the root of the axis' own.
    assert float(deviation[0] / deviation[-1]) == pytest.approx(float(scale[0] / scale[-1]), rel=0.1)
