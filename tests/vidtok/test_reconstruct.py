"""``reconstruct.py`` on a real file, with random weights."""

import pytest
import torch
import yaml

from data_tools.shapes import render_clips
from data_tools.video.decode import validate
from pipelines import reconstruct
from pipelines.vidtok_training import reconstruct as reconstructing
from pipelines.vidtok_training.clips import read_clips, to_pixels
from pipelines.vidtok_training.models import in_tiles
from support.vidtok import random_video, small_model
from vtok.config import ConfigError
from vtok.weights.own_folder import save_weights

NAME = "vidtok_kl_causal_488_4chn_v1_1"


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    render_clips(folder, 1, seed=3)
    return next(folder.glob("*.mp4"))


def reconstructed(model, video, **options):
    return reconstructing.reconstruct(model, video, fps=8, height=32, width=48, chunk=8, **options)


def test_the_command_writes_the_reconstruction_and_both_side_by_side(video, tmp_path, capsys):
    save_weights(small_model(NAME, ch=8), tmp_path / "x.safetensors")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"model": {"name": NAME, "ch": 8}}))
    command = ["--config", str(tmp_path / "small.yaml"), "--checkpoint", str(tmp_path / "x.safetensors")]
    command += ["--input", str(video), "--output-dir", str(tmp_path / "out"), "--height", "32", "--width", "48"]
    reconstruct.main([*command, "--fps", "8", "--chunk", "8", "--read-long-video"])
    frames = round(validate(video).duration * 8)
    for name, width in (("reconstruction", 48), ("side_by_side", 96)):
        facts = validate(tmp_path / "out" / f"{video.stem}_{name}.mp4")
        assert (facts.frames, facts.height, facts.width, round(facts.fps)) == (frames, 32, width, 8)
    with pytest.raises(SystemExit) as exit:
        reconstruct.main([*command, "--fps", "8", "--read-long-video", "--pad-gen-frames"])
    assert exit.value.code == 2
    assert capsys.readouterr().err == "reconstruct: error: choose one of --read-long-video and --pad-gen-frames\n"


@torch.no_grad()
def test_a_long_video_is_one_clip(video):
    model = small_model(NAME, ch=8)
    original, reconstruction = reconstructed(model, video, long=True)
    total, clips = read_clips(video, 8, 32, 48, 1000)
    whole = next(clips)
    assert torch.equal(original, to_pixels(whole)) and len(original) == total
    assert (reconstruction.int() - to_pixels(model(whole)[1]).int()).abs().max() <= 1


@torch.no_grad()
@pytest.mark.parametrize("name", [NAME, "vidtok_kl_noncausal_488_4chn"])
def test_clips_are_reconstructed_one_by_one(video, name):
    model = small_model(name, ch=8)
    _, reconstruction = reconstructed(model, video)
    total, clips = read_clips(video, 8, 32, 48, 9 if model.is_causal else 8)
    expected = torch.cat([to_pixels(model(clip)[1]) for clip in clips])
    assert torch.equal(reconstruction, expected) and len(expected) == total


@torch.no_grad()
def test_frames_go_through_in_tiles(video):
    """Tiles are combined with chunks of one latent frame, which do not change the result."""
    model, clip = small_model(NAME, ch=8), next(read_clips(video, 8, 32, 48, 9)[1])
    whole = to_pixels(model(clip)[1])
    model.tile, model.tile_overlap = 32, 16
    expected = to_pixels(model(clip)[1]).int()
    found = reconstructed(in_tiles(small_model(NAME, ch=8), 32, 16), video)[1][:9].int()
    assert (found - expected).abs().max() <= 1 < (found - whole.int()).abs().max()


@torch.no_grad()
@pytest.mark.parametrize("name", [NAME, "vidtok_kl_causal_488_4chn"])
def test_a_clip_can_go_on_from_the_reconstruction_before_it(name):
    """The last f - 1 frames of the previous reconstruction replace the copies of the clip's first frame.

    The last clip has a single frame.
    """
    model = small_model(name, ch=8)
    clips = random_video(19).split(9, dim=2)
    first, second, last = reconstructing.after_generated(model, clips)
    torch.testing.assert_close(first, model(clips[0])[1])
    behind = torch.cat([first[:, :, -3:].clamp(-1, 1), clips[1]], dim=2)
    torch.testing.assert_close(second, model.decode(model.encode(behind))[:, :, -9:])
    assert last.shape == clips[2].shape


def test_what_a_model_cannot_do_is_said(video):
    with pytest.raises(ConfigError, match="need a causal VidTok"):
        reconstructed(small_model("vidtok_kl_noncausal_488_4chn", ch=8), video, long=True)
    with pytest.raises(ConfigError, match="choose one of --read-long-video and --tile"):
        reconstructed(in_tiles(small_model(NAME, ch=8), 32, 16), video, long=True)
    with pytest.raises(ConfigError, match="the overlap of tiles must be less than their side of 16, not 24"):
        reconstructed(in_tiles(small_model(NAME, ch=8), 16, 24), video)
    with pytest.raises(ConfigError, match="--height and --width must be multiples of 16, not 32x40"):
        model = small_model("vidtok_kl_causal_41616_4chn", ch=8)
        reconstructing.reconstruct(model, video, fps=8, height=32, width=40, chunk=8)
