"""``train_omnitokenizer.py``: the curve, resuming, and the codec that it writes."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from data_tools.shapes import render_clips
from data_tools.video.files import VideoFiles
from pipelines import train_omnitokenizer
from pipelines.codec_training.config import parse_codec_arguments
from pipelines.codec_training.recipes import OmniTokenizerRecipe
from pipelines.codec_training.validation import Validation
from support.commands import called
from support.launch import assert_user_error, checked
from support.runs import assert_same_run, copied_to_resume, log_of
from vtok.config import VTokConfig
from vtok.omnitokenizer.model import to_model
from vtok.tokeniser import build_tokeniser

COMMAND = train_omnitokenizer.main
SMALL = {
    "model": {
        "twod_window_size": 2, "embedding_dim": 24, "heads": 2, "dim_head": 12, "n_codes": 32, "temporal_depth": 1,
        "enc_block": "tw", "dec_block": "t",
    },
    "data": {"frames": 5, "fps": 6, "height": 48, "width": 48, "crop": 32, "workers": 1},
    "train": {"max_steps": 4, "global_batch_size": 2, "lr": 1e-4},
    "checkpoint": {"every": 2},
    "validation": {"every": 4, "samples": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("omnitokenizer")
    render_clips(folder / "clips", 5, seed=3)
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    return folder


@pytest.fixture(scope="module")
def one_rank(folder):
    """A finished run, which was validated on its own clips."""
    output = folder / "one"
    videos = ("--data.root", folder / "clips", "--validation.root", folder / "clips")
    checked(called(COMMAND, "--config", folder / "small.yaml", *videos, "--output", output))
    return output


def test_what_a_run_writes_is_a_backbone(one_rank):
    for line in log_of(one_rank):
        parts = line["loss_rec"] + line["loss_codes"] + 0.01 * line["loss_usage"]
        assert line["loss"] == pytest.approx(parts, rel=1e-4)
    weights = str(one_rank / "codec")
    settings = VTokConfig(strategy="omnitokenizer", backbone="omnitokenizer", weights=weights, spatial_grid_size=2)
    tokeniser = build_tokeniser(settings)
    assert tokeniser.codec.image_size == 32  # that of the crops
    assert tokeniser(torch.zeros(1, 9, 3, 32, 32, dtype=torch.uint8)).shape == (1, 4 + 2 * 4, 1024)


@torch.no_grad()
def test_a_run_is_validated_on_centres_of_its_crops_size(folder, one_rank):
    (line,) = [json.loads(line) for line in (one_rank / "validation.jsonl").read_text().splitlines()]
    assert line["step"] == 4 and line["samples"] == 2 and line["loss"] == line["rec_loss"]
    config = parse_codec_arguments("train_omnitokenizer", "", ["--config", str(one_rank / "config.yaml")]).config
    recipe = OmniTokenizerRecipe(config.model, config.data)
    model = recipe.build().eval()
    model.load_state_dict(load_file(one_rank / "codec" / recipe.weights))
    validation = Validation(config, VideoFiles(folder / "clips"), recipe)
    errors = []
    for row in range(2):
        video = to_model(validation.clip(row)[0][:, :, 8:40, 8:40])[None]
        rebuilt = model.decode(model(video)[1])
        errors.append((rebuilt.clamp(-0.5, 0.5) - video).square().mean((0, 1, 3, 4)))
    psnr = sum((-10 * error.log10()).mean().item() for error in errors) / 2
    assert line["psnr"] == pytest.approx(psnr, rel=1e-4)


def test_a_resumed_run_repeats_its_log_to_the_last_digit(folder, one_rank):
    output = copied_to_resume(one_rank, folder / "resumed")
    (output / "codec/omnitokenizer.safetensors").unlink()
    options = ("--data.root", folder / "clips", "--output", output, "--resume", "auto")
    checked(called(COMMAND, "--config", folder / "small.yaml", *options))
    assert_same_run(output, one_rank, "codec/omnitokenizer.safetensors")


@pytest.mark.long
def test_two_ranks_give_the_same_curve_as_one(ranks, folder, one_rank):
    output = folder / "two"
    checked(ranks.run(COMMAND, "--config", folder / "small.yaml", "--data.root", folder / "clips", "--output", output))
    for one, two in zip(log_of(one_rank), log_of(output), strict=True):
        for name in (*OmniTokenizerRecipe.losses, "grad_norm"):
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-6), name


def test_mistakes_are_one_line(folder):
    start = (COMMAND, "--config", folder / "small.yaml", "--data.root", folder / "clips", "--output", folder / "no")
    assert_user_error(called(*start, "--data.frames", 6), "4 k + 1 frames")
    assert_user_error(called(*start, "--data.crop", "null", "--data.width", 56), "squares of 48 pixels")
    assert_user_error(called(*start, "--model.twod_window_size", 3), "should divide its 4 patches")
    assert not (folder / "no").exists()
