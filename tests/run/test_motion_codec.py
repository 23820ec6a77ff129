"""``train_motion_codec.py``, and training of the strategy video-lavit with the codec that it writes."""

import json
import shutil

import pytest
import torch
import yaml

from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from data_tools.shards import ShardReader
from data_tools.video.encode import encode_mp4
from data_tools.video.files import VideoFiles
from pipelines import precompute, tokenise, train, train_motion_codec, understand
from pipelines.cli.config_files import save_config
from pipelines.cli.parsing import parse_run_arguments
from pipelines.codec_training.config import parse_codec_arguments
from pipelines.codec_training.data import Reading
from pipelines.codec_training.recipes import MotionCodecRecipe
from pipelines.codec_training.validation import Validation
from pipelines.vidtok_training.data import build_dataset, open_videos
from support.commands import called
from support.launch import assert_user_error, checked
from support.runs import assert_same_run, copied_to_resume, log_of, without_rates
from support.tiny import model_config, with_strategy
from vtok.motion_codec.folder import load_codec

COMMAND = train_motion_codec.main
SMALL = {
    "model": {"channels": 16, "heads": 2, "blocks": 1, "codes": 64, "code_dim": 8},
    "data": {"frames": 25, "fps": 6, "height": 48, "width": 48, "workers": 1},
    "train": {"max_steps": 4, "global_batch_size": 2, "lr": 1e-4},
    "checkpoint": {"every": 2},
    "validation": {"every": 3, "samples": 2},
}
LAVIT = ("--config", "pipelines/configs/tiny_video-lavit.yaml")
RUN = ("--data.seconds", 1, "--data.window", "centred", "--train.global_batch_size", 4, "--train.lr", 1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    render_clips(folder / "clips", 6, seed=3)
    build_shards(folder / "clips", folder / "shards", samples_per_shard=3, progress=False)
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    return folder


@pytest.fixture(scope="module")
def one_rank(folder):
    """A finished run, which was validated on its own clips."""
    output = folder / "one"
    videos = ("--data.shards", folder / "shards", "--validation.root", folder / "clips")
    checked(called(COMMAND, "--config", folder / "small.yaml", *videos, "--output", output))
    return output


@torch.no_grad()
def test_a_run_writes_the_codec_that_it_trained(folder, one_rank):
    log = log_of(one_rank)
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    for line in log:
        assert line["loss"] == pytest.approx(
            line["loss_rec"] + line["loss_codes"] + 0.1 * line["loss_usage"], rel=1e-4, abs=1e-5
        )
    options = ["--config", str(folder / "small.yaml"), "--data.shards", str(folder / "shards")]
    config = parse_codec_arguments("train_motion_codec", "", options).config
    recipe = MotionCodecRecipe(config.model, config.data)
    read = build_dataset(config, open_videos(config), Reading(recipe.read, config.data.crop))[0].value
    assert read.shape == (24, 2, 20, 36) and read.any()
    codec = load_codec(one_rank / "codec")
    assert codec.config == recipe.config
    assert codec.decode(codec.encode(read[None])).shape == (1, *read.shape)
    torch.manual_seed(0)
    assert not torch.equal(codec.encoder.input.weight, recipe.build().encoder.input.weight)


def test_a_run_is_validated_on_the_middles_of_the_first_videos(folder, one_rank):
    lines = [json.loads(line) for line in (one_rank / "validation.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 4] and lines[0]["rec_loss"] != lines[1]["rec_loss"]
    config = parse_codec_arguments("train_motion_codec", "", ["--config", str(one_rank / "config.yaml")]).config
    recipe = MotionCodecRecipe(config.model, config.data)
    figures, shown = Validation(config, VideoFiles(folder / "clips"), recipe).run(load_codec(one_rank / "codec"))
    assert figures.keys() == {"rec_loss"} and not shown
    assert lines[-1]["loss"] == lines[-1]["rec_loss"] == pytest.approx(figures["rec_loss"], rel=1e-5)


def test_a_resumed_run_repeats_its_log_to_the_last_digit(folder, one_rank):
    output = copied_to_resume(one_rank, folder / "resumed")
    (output / "codec/motion_codec.safetensors").unlink()
    options = ("--data.shards", folder / "shards", "--output", output, "--resume", "auto")
    checked(called(COMMAND, "--config", folder / "small.yaml", *options))
    assert_same_run(output, one_rank, "codec/motion_codec.safetensors")


@pytest.mark.slow
def test_two_ranks_give_the_same_curve_as_one(ranks, folder, one_rank):
    output = folder / "two"
    checked(
        ranks.run(COMMAND, "--config", folder / "small.yaml", "--data.shards", folder / "shards", "--output", output)
    )
    for one, two in zip(log_of(one_rank), log_of(output), strict=True):
        for name in (*MotionCodecRecipe.losses, "grad_norm"):
            assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), name


def test_mistakes_are_one_line(folder, one_rank):
    start = (COMMAND, "--config", folder / "small.yaml", "--data.shards", folder / "shards", "--output", folder / "no")
    assert_user_error(called(*start, "--data.frames", 24), "set data.frames to that, not 24")
    assert_user_error(called(*start, "--model.channel", 24), "no setting channel")
    assert_user_error(called(*start[:-1], one_rank), "already holds a run")
    assert_user_error(called(*start, "--ds_config", "deepspeed_configs/zero3.json"), "ZeRO-2")
    assert not (folder / "no").exists()
    told = checked(called(*start, "--dry_run"))
    assert "steps        4" in told.stdout and not (folder / "no").exists()


@pytest.mark.slow
def test_a_trained_codec_s_codes_are_stored_and_trained_on(folder, one_rank, tmp_path):
    """Stored features give the losses of the videos' own; another codec is refused by name."""
    codec = ("--model.tokeniser.codec", one_rank / "codec")
    checked(called(precompute.main, folder / "shards", "--output", tmp_path / "ready", *LAVIT, *RUN[:4], *codec))
    assert "tokeniser.codec (sha256)" in ShardReader(tmp_path / "ready").precomputed["features"]
    logs = []
    for name, shards in (("videos", folder / "shards"), ("stored", tmp_path / "ready")):
        given = (*LAVIT, *RUN, *codec, "--train.max_steps", 3, "--data.shards", shards)
        checked(called(train.main, *given, "--output", tmp_path / name))
        logs.append(log_of(tmp_path / name))
    for video, stored in zip(*logs, strict=True):
        assert video["batch_digest"] == stored["batch_digest"]
        for loss in ("loss_under", "loss_vis_lm", "loss_dec"):
            assert stored[loss] == pytest.approx(video[loss], rel=0.02), loss
    start = (train.main, *LAVIT, *RUN, "--train.max_steps", 3, "--data.shards", tmp_path / "ready")
    assert_user_error(called(*start, "--output", tmp_path / "other"), "tokeniser.codec (sha256)")


@pytest.mark.slow
def test_a_run_resumes_and_is_asked_and_shown(folder, tmp_path):
    given = (train.main, *LAVIT, *RUN, "--train.max_steps", 4, "--checkpoint.every", 2)
    given += ("--data.shards", folder / "shards", "--output", tmp_path / "run")
    checked(called(*given))
    whole = without_rates(log_of(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run/checkpoints/step_00000004")
    checked(called(*given, "--resume", "auto"))
    assert without_rates(log_of(tmp_path / "run")) == whole
    clip = folder / "clips/000.mp4"
    asked = called(understand.main, "--checkpoint", tmp_path / "run", "--video", clip, "--max_new_tokens", 4)
    checked(asked)
    shown = ("--output", tmp_path / "tokens.safetensors", "--show", tmp_path / "tokens.png")
    told = checked(called(tokenise.main, clip, "--checkpoint", tmp_path / "run", *shown))
    assert "tokens" in told.stdout and (tmp_path / "tokens.png").stat().st_size > 1000


def write_config(tiny_models, path):
    """The tiny preset with the models of the tests."""
    config = parse_run_arguments(["--config", LAVIT[1]]).config
    model = with_strategy(model_config(tiny_models), tiny_models, strategy="video-lavit")
    config.tiny_models, config.model = False, model
    save_config(config, path)


def test_an_untrained_model_is_refused_in_one_line(tiny_models, tmp_path):
    write_config(tiny_models, tmp_path / "run.yaml")
    (tmp_path / "clip.mp4").write_bytes(encode_mp4(torch.zeros(9, 64, 64, 3).byte().numpy(), 8, 18))
    asked = called(understand.main, "--config", tmp_path / "run.yaml", "--video", tmp_path / "clip.mp4")
    assert_user_error(asked, "random weights: train the model first")


def test_the_picture_shows_how_much_moves(tiny_models, tmp_path):
    write_config(tiny_models, tmp_path / "run.yaml")
    noise = torch.randint(0, 256, (17, 64, 64, 3), generator=torch.Generator().manual_seed(0)).byte()
    (tmp_path / "clip.mp4").write_bytes(encode_mp4(noise.numpy(), 8, 18))
    output, picture = tmp_path / "tokens.safetensors", tmp_path / "tokens.png"
    given = (tokenise.main, tmp_path / "clip.mp4", "--config", tmp_path / "run.yaml", "--output", output)
    assert "28 tokens" in checked(called(*given, "--show", picture)).stdout and picture.is_file()
    header = json.loads(output.read_bytes()[8 : 8 + int.from_bytes(output.read_bytes()[:8], "little")])
    assert header["0.vectors"]["shape"] == [12, 2, 20, 36] and header["0.motion"]["shape"] == [12, 8]
