"""Tiles of the autoencoders against diffusers' own, when they are used, and what a plan makes of them."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLWan

from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from pipelines.engine.loading.precomputed import latent_recipe, require_recipe
from support.tiny import model_config, wan_config
from vtok.assembly.build import build_framework
from vtok.config import ConfigError
from vtok.video_decoder import GenerationRow, build_vae, encode_video
from vtok.video_decoder.patch_autoencoder import PatchAutoencoder
from vtok.video_decoder.tiling import LARGEST_WHOLE, is_tiled
from vtok.video_decoder.wan import WanDecoder

TINY = ("--config", str(PRESETS / "tiny.yaml"))

# Folder of the tiny models -> class, and frames of a clip: more than one of HunyuanVideo's windows.
AUTOENCODERS = {
    "hunyuan": (AutoencoderKLHunyuanVideo, 21),
    "wan": (AutoencoderKLWan, 9),
    "wan_experts": (AutoencoderKLWan, 9),
}
# More than a tile of 64 x 64 pixels, which the patched one makes of 128 x 128 when it encodes.
SIZE = {"hunyuan": (32, 96), "wan": (32, 160), "wan_experts": (32, 96)}


def with_small_tiles(vae):
    vae.tile_sample_min_height = vae.tile_sample_min_width = 64
    vae.tile_sample_stride_height = vae.tile_sample_stride_width = 48
    return vae


def own(name, models):
    """Diffusers' own, from the same folder."""
    kind, frames = AUTOENCODERS[name]
    return with_small_tiles(kind.from_pretrained(models / name, subfolder="vae")), frames


def decoder_config(name, models, **settings):
    config = model_config(models) if name == "hunyuan" else wan_config(models, weights=name)
    expert = {"expert": "high_noise"} if name == "wan_experts" else {}
    return replace(config.decoder, height=SIZE[name][0], width=SIZE[name][1], **expert, **settings)


def random_video(frames, height, width):
    return torch.randint(0, 256, (1, frames, 3, height, width), dtype=torch.uint8)


def moments(vae, video):
    posterior = vae.encode(video.transpose(1, 2) / 127.5 - 1).latent_dist
    return posterior.mean, posterior.std


@torch.no_grad()
@pytest.mark.parametrize("name", AUTOENCODERS)
def test_tiled_latents_are_those_of_diffusers_tiles(tiny_models, name):
    """Exactly; whole frames follow tiled ones on the same autoencoder, and tiled ones whole ones."""
    config = decoder_config(name, tiny_models)
    ours, (theirs, frames) = with_small_tiles(build_vae(config)), own(name, tiny_models)
    video = random_video(frames, *SIZE[name])
    whole = moments(theirs, video)
    theirs.enable_tiling()
    tiled = moments(theirs, video)
    assert not torch.equal(whole[0], tiled[0])
    for setting, expected in ((True, tiled), (False, whole), (True, tiled), ("auto", whole)):
        assert all(map(torch.equal, encode_video(ours, video, setting), expected))
    small = random_video(frames, 32, 32)
    theirs.disable_tiling()
    assert torch.equal(encode_video(ours, small, True).mean, moments(theirs, small)[0])


@torch.no_grad()
@pytest.mark.parametrize("name", AUTOENCODERS)
def test_sampled_videos_are_decoded_in_diffusers_tiles(tiny_models, name):
    theirs, frames = own(name, tiny_models)
    base = model_config(tiny_models) if name == "hunyuan" else wan_config(tiny_models)
    for tiled in (True, False):
        torch.manual_seed(0)
        decoder = build_framework(replace(base, decoder=decoder_config(name, tiny_models, vae_tiling=tiled))).decoder
        decoded, decode = [], with_small_tiles(decoder.vae).decode
        decoder.vae.decode = lambda z, **options: decoded.append((z, decode(z, **options))) or decoded[-1][1]
        rows, text = torch.zeros(1, 512, 32), decoder.encode_text([[0] * 77], "cpu")
        if not isinstance(decoder, WanDecoder):
            rows = decoder.condition([GenerationRow(torch.zeros(3, 128), torch.zeros(2, 128))], text)
        decoder.sample(rows, frames, 1, torch.Generator().manual_seed(0))
        ((latents, (video,)),) = decoded
        theirs.use_tiling = tiled
        assert torch.equal(video, theirs.decode(latents).sample)
        theirs.use_tiling = not tiled
        assert not torch.equal(video, theirs.decode(latents).sample)


def test_auto_tiles_large_frames_only_and_only_what_has_tiles(tiny_models):
    hunyuan, wan = own("hunyuan", tiny_models)[0], own("wan", tiny_models)[0]
    assert [is_tiled(hunyuan, "auto", *size) for size in ((320, 576), (480, 832), (544, 960), (720, 1280))] == [
        False, False, True, True,
    ]  # fmt: skip
    assert [is_tiled(wan, "auto", *size) for size in ((704, 1280), (720, 1280), (1088, 1920))] == [False, False, True]
    patches = PatchAutoencoder()
    assert not any(is_tiled(patches, setting, 1088, 1920) for setting in ("auto", False))
    assert all(hasattr(kind, "enable_tiling") for kind in LARGEST_WHOLE)


def test_tiles_that_an_autoencoder_does_not_have_are_refused(tiny_models, tmp_path):
    for part in ("transformer", "scheduler", "text_encoder_2", "tokenizer_2"):
        (tmp_path / part).symlink_to(tiny_models / "hunyuan" / part)
    PatchAutoencoder(latent_channels=4).save_pretrained(tmp_path / "vae")
    config = model_config(tiny_models)
    config.decoder = replace(config.decoder, weights=str(tmp_path), vae_tiling=True)
    with pytest.raises(ConfigError, match="a PatchAutoencoder has no tiles: set it to auto or false"):
        build_framework(config)


@pytest.mark.parametrize("text, value", [("auto", "auto"), ("true", True), ("false", False)])
def test_the_setting_is_read_from_the_command_line(text, value):
    read = parse_run_arguments([*TINY, f"--model.decoder.vae_tiling={text}"]).config
    assert read.model.decoder.vae_tiling is value or read.model.decoder.vae_tiling == value == "auto"


def test_stored_latents_must_be_tiled_as_the_run_would_tile(tiny_models):
    vae, decoder = own("hunyuan", tiny_models)[0], decoder_config("hunyuan", tiny_models)

    def recipe(*settings):
        config = parse_run_arguments([*TINY, *settings]).config
        return json.loads(json.dumps(latent_recipe(config, decoder, vae)))

    large = ("--model.decoder.height=720", "--model.decoder.width=1280")
    require_recipe("shards", "latents", recipe(*large), recipe(*large, "--model.decoder.vae_tiling=true"))
    with pytest.raises(ConfigError, match="vae_tiling True, this run has False"):
        require_recipe("shards", "latents", recipe(*large), recipe(*large, "--model.decoder.vae_tiling=false"))
