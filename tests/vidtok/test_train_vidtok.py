"""``train_vidtok.py`` on shapes clips: the curve, the checkpoints, the two stages."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from data_tools.errors import BadVideo
from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from data_tools.video.decode import measured_duration, validate
from data_tools.video.files import VideoFiles
from pipelines import train_vidtok
from pipelines.vidtok_training import data
from pipelines.vidtok_training.config import parse_vidtok_arguments
from pipelines.vidtok_training.models import load_vidtok, read_vidtok_config
from pipelines.vidtok_training.validation import Validation
from support.commands import called
from support.launch import assert_user_error, checked
from support.runs import assert_same_run, copied_to_resume, log_of, without_rates
from support.vidtok import lpips_files
from vtok.config import ConfigError
from vtok.vidtok import load_model
from vtok.vidtok.losses.discriminator import PatchGAN

COMMAND = train_vidtok.main
# Adam's first steps move a weight by about the learning rate, even one whose gradient is rounding. A low rate keeps
# what the kernels of different machines round differently out of the curves.
SMALL = {
    "model": {"name": "vidtok_kl_causal_488_4chn", "ch": 8},
    "data": {"frames": 5, "fps": 8, "height": 32, "width": 32, "workers": 1},
    "loss": {"discriminator_start": 2},
    "train": {"max_steps": 4, "global_batch_size": 2, "lr": 1e-4, "ema_decay": 0.9},
    "checkpoint": {"every": 2},
    "validation": {"every": 3, "samples": 3, "videos": 1},
}
GAME = ("loss_adv", "adv_weight", "loss_disc", "logits_real", "logits_fake", "grad_norm_disc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vidtok")
    render_clips(folder / "clips", 5, seed=3)
    build_shards(folder / "clips", folder / "shards", progress=False)
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    return folder


@pytest.fixture(scope="module")
def one_rank(folder):
    """A finished run; the discriminator takes part in its last two steps."""
    output = folder / "one"
    checked(called(COMMAND, "--config", folder / "small.yaml", "--data.shards", folder / "shards", "--output", output))
    return output


@pytest.mark.slow
def test_two_ranks_give_the_same_curve_as_one(ranks, folder, one_rank):
    output = folder / "two"
    options = ("--config", folder / "small.yaml", "--data.shards", folder / "shards", "--output", output)
    checked(ranks.run(COMMAND, *options))
    one, two = log_of(one_rank), log_of(output)
    assert [line["batch_digest"] for line in one] == [line["batch_digest"] for line in two]
    assert len(one) == len(two) == 4
    for a, b in zip(one, two):
        for name in ("loss", "loss_nll", "loss_reg", "l1", "grad_norm", "ema_distance", *GAME):
            assert a[name] == (None if b[name] is None else pytest.approx(b[name], rel=1e-4, abs=1e-6)), name


def test_the_discriminator_is_not_run_before_its_start(one_rank):
    log = log_of(one_rank)
    assert all(line[name] is None for line in log[:2] for name in GAME)
    assert all(isinstance(line[name], float) for line in log[2:] for name in GAME)
    stored = {}
    for step in (2, 4):
        path = one_rank / f"discriminator/checkpoints/step_0000000{step}/rank_00000.safetensors"
        stored[step] = load_file(path)
    name = "patches.layers.0.weight"
    assert f"exp_avg/{name}" not in stored[2] and f"exp_avg/{name}" in stored[4]
    assert not torch.equal(stored[2][f"weights/{name}"], stored[4][f"weights/{name}"])
    assert stored[2][f"weights/{name}"].std().item() == pytest.approx(0.02, rel=0.1)  # its initial value
    means = [load_file(one_rank / f"discriminator/checkpoints/step_0000000{step}/feature_scale.safetensors")["means"]
             for step in (2, 4)]  # fmt: skip
    expected = torch.zeros(2)
    for line in log[2:]:
        expected = 0.999 * expected + 0.001 * torch.tensor([line["logits_real"], line["logits_fake"]])
    assert not means[0].any()
    torch.testing.assert_close(means[1], expected, rtol=1e-4, atol=1e-8)


def test_the_loss_is_the_sum_of_its_parts(one_rank):
    for line in log_of(one_rank)[:2]:
        assert line["loss"] == pytest.approx(line["loss_nll"] + line["loss_reg"], rel=1e-5)


def test_a_resumed_run_repeats_its_log_to_the_last_digit(folder, one_rank):
    """The discriminator's last checkpoint is not complete, the autoencoder's is. Both resume from the one before."""
    output = copied_to_resume(one_rank, folder / "resumed", of="discriminator")
    for name in ("vidtok.safetensors", "vidtok_ema.safetensors"):
        (output / name).unlink()
    options = ("--data.shards", folder / "shards", "--output", output, "--resume", "auto")
    checked(called(COMMAND, "--config", folder / "small.yaml", *options))
    assert_same_run(output, one_rank, "vidtok.safetensors", "vidtok_ema.safetensors")


@pytest.mark.slow
def test_a_run_without_the_discriminator_s_checkpoints_starts_anew_and_keeps_what_is_there(folder, one_rank):
    output = shutil.copytree(one_rank, folder / "anew")
    shutil.rmtree(output / "discriminator/checkpoints")
    options = ("--data.shards", folder / "shards", "--output", output, "--resume", "auto", "--train.max_steps", 1)
    told = checked(called(COMMAND, "--config", folder / "small.yaml", *options)).stderr
    assert "the run starts at step 0" in told
    assert (output / "log.jsonl.aside").read_text() == (one_rank / "log.jsonl").read_text()
    names = {path.name for path in (output / "checkpoints").iterdir()}
    assert names == {"step_00000001", "step_00000002.aside", "step_00000004.aside"}


def test_what_a_run_saves_is_what_load_model_reads(one_rank):
    model = load_vidtok(one_rank / "config.yaml", one_rank / "vidtok.safetensors")
    average = load_model(read_vidtok_config(one_rank / "config.yaml"), one_rank / "vidtok_ema.safetensors")
    path = one_rank / "checkpoints/step_00000004/rank_00000.safetensors"
    with safe_open(path, framework="pt") as stored:
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter.flatten(), stored.get_tensor(f"weights/model.{name}")), name
        for name, parameter in average.named_parameters():
            assert torch.equal(parameter.flatten(), stored.get_tensor(f"ema/model.{name}")), name


@pytest.mark.slow
def test_a_run_is_validated_with_its_weights_and_their_average(folder):
    """Reconstruction loss and PSNR of the middles of the first videos, as ``load_vidtok`` gives them; and a picture."""
    output = folder / "validated"
    options = ("--data.shards", folder / "shards", "--validation.root", folder / "clips", "--output", output)
    checked(called(COMMAND, "--config", folder / "small.yaml", *options))
    lines = [json.loads(line) for line in (output / "validation.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 4] and lines[0]["rec_loss"] != lines[1]["rec_loss"]
    assert without_rates(log_of(output)) == without_rates(log_of(folder / "one"))  # it disturbs nothing
    config = parse_vidtok_arguments(["--config", str(output / "config.yaml")]).config
    for suffix in ("", "_ema"):
        model = load_vidtok(output / "config.yaml", output / f"vidtok{suffix}.safetensors").eval()
        figures, shown = Validation(config, VideoFiles(folder / "clips"), None).run(model)
        assert lines[-1][f"psnr{suffix}"] == pytest.approx(figures["psnr"], rel=1e-5)
        assert lines[-1][f"rec_loss{suffix}"] == pytest.approx(figures["rec_loss"], rel=1e-5)
    assert lines[-1]["psnr"] != lines[-1]["psnr_ema"] and lines[-1]["samples"] == 3
    (video,) = shown
    assert video.frames.shape == (5, 3, 32, 64) and video.frames.dtype == torch.uint8
    written = b"".join(path.read_bytes() for path in (output / "tensorboard").iterdir())
    assert b"videos/000.mp4" in written and b"GIF89a" in written and b"validation/psnr_ema" in written
    checked(called(COMMAND, "--config", folder / "small.yaml", *options, "--resume", "auto"))
    assert len((output / "validation.jsonl").read_text().splitlines()) == len(lines)  # that of the last step is there


@pytest.mark.long
def test_checkpointed_blocks_give_the_same_run(folder, one_rank):
    output = folder / "checkpointed"
    options = ("--data.shards", folder / "shards", "--output", output, "--train.gradient_checkpointing", "true")
    checked(called(COMMAND, "--config", folder / "small.yaml", *options))
    for ours, theirs in zip(log_of(output), log_of(one_rank), strict=True):
        for name in ("loss", "loss_nll", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name


@pytest.mark.long
def test_lpips_counts_in_the_likelihood(folder, one_rank):
    lpips_files(folder)
    output = folder / "perceptual"
    weights = ("--loss.lpips_vgg", folder / "vgg.pth", "--loss.lpips_linear", folder / "linear.pth")
    options = ("--data.shards", folder / "shards", "--output", output, "--train.max_steps", 1)
    checked(called(COMMAND, "--config", folder / "small.yaml", *options, *weights))
    (perceptual,), plain = log_of(output), log_of(one_rank)[0]
    assert perceptual["batch_digest"] == plain["batch_digest"]
    assert perceptual["l1"] == pytest.approx(plain["l1"], rel=1e-5)
    assert perceptual["loss_nll"] > plain["loss_nll"]
    assert perceptual["grad_norm"] != pytest.approx(plain["grad_norm"], rel=1e-2)


def test_the_second_stage_trains_the_decoder_alone(folder, one_rank):
    """Trains on a folder of videos with a table, with a discriminator of space and time."""
    (folder / "videos.csv").write_text("videos\n001.mp4\n002.mp4\n004.mp4\n")
    weights, output = one_rank / "vidtok.safetensors", folder / "second"
    checked(
        called(
            COMMAND, "--config", folder / "small.yaml", "--fix_encoder", "true", "--weights", weights, "--data.root",
            folder / "clips", "--data.meta_path", folder / "videos.csv", "--loss.discriminator", "3d",
            "--loss.discriminator_start", 0, "--train.max_steps", 2, "--data.height", 64, "--data.width", 64,
            "--output", output,
        )
    )  # fmt: skip
    before, after = load_file(weights), load_file(output / "vidtok.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    assert not [name for name in before if name.startswith("decoder.") and name not in changed]
    assert log_of(output)[0]["loss_disc"] > 0
    state = json.loads((output / "checkpoints/step_00000002/state.json").read_text())
    assert set(state["frozen"]) == {"encoder"} and not [name for name in state["shapes"] if "encoder." in name]


@pytest.mark.long
def test_fsq_trains_to_the_same_codes_on_two_ranks_as_on_one(ranks, folder):
    """FSQ's entropy covers the codes of all ranks, so one clip on each of two ranks equals two clips on one rank."""
    options = ("--config", folder / "small.yaml", "--model.name", "vidtok_fsq_causal_488_4096", "--loss.discriminator",
               "none", "--data.shards", folder / "shards", "--output")  # fmt: skip
    checked(called(COMMAND, *options, folder / "fsq_one", "--train.micro_batch_size", 2))
    checked(ranks.run(COMMAND, *options, folder / "fsq_two"))
    one, two = log_of(folder / "fsq_one"), log_of(folder / "fsq_two")
    assert len(one) == len(two) == 4
    for a, b in zip(one, two):
        for name in ("loss", "loss_nll", "loss_reg", "grad_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-3), name
    assert all(abs(line["loss_reg"]) > 1e-3 for line in one)  # entropy and commitment take part
    video = 2 * torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0)) - 1
    codes = []
    for run in ("fsq_one", "fsq_two"):
        model = load_vidtok(folder / run / "config.yaml", folder / run / "vidtok.safetensors").eval()
        with torch.no_grad():
            codes.append(model.encode(video, return_reg_log=True)[1]["indices"])
    assert (codes[0] == codes[1]).float().mean() > 0.9


@pytest.mark.long
def test_bf16_trains_along_the_curve_of_fp32(folder):
    """The learning rate is low. At a rate where one step lowers the loss by a third, rounding errors grow at once."""
    outputs = [folder / precision for precision in ("fp32", "bf16")]
    for output in outputs:
        options = ("--data.shards", folder / "shards", "--train.precision", output.name, "--train.lr", "1e-4")
        checked(called(COMMAND, "--config", folder / "small.yaml", *options, "--output", output))
    for a, b in zip(*map(log_of, outputs), strict=True):
        for name in ("loss_nll", "l1"):
            assert a[name] == pytest.approx(b[name], rel=0.02) and a[name] != b[name], name
    model = load_vidtok(outputs[1] / "config.yaml", outputs[1] / "vidtok.safetensors")
    assert any(not torch.equal(p, p.bfloat16().float()) for p in model.parameters())  # the masters, not their rounding
    with safe_open(outputs[1] / "checkpoints/step_00000004/rank_00000.safetensors", framework="pt") as masters:
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter.flatten(), masters.get_tensor(f"weights/model.{name}")), name
    stored = load_file(outputs[0] / "vidtok.safetensors")
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        torch.testing.assert_close(parameter.detach(), stored[name], rtol=0.02, atol=0.02)


def test_video_files_are_read_as_shards_are(folder):
    files = VideoFiles(folder / "clips")
    raw = files.read(3)
    assert (len(files), files.key(3), raw.key) == (5, "003.mp4", "003.mp4")
    assert raw.meta["facts"]["duration"] == pytest.approx(validate(folder / "clips/003.mp4").duration)
    (folder / "some.csv").write_text("videos\n003.mp4\n")
    assert VideoFiles(folder / "clips", folder / "some.csv").manifest_hash != files.manifest_hash
    with pytest.raises(BadVideo):
        measured_duration(folder / "clips/captions.csv")


def test_crops_are_squares_at_the_samples_own_places(folder):
    """A sample's square does not depend on the process that draws it; different samples have different places."""
    options = ["--config", str(folder / "small.yaml"), "--data.shards", str(folder / "shards")]
    config = parse_vidtok_arguments(options).config
    clips = data.build_dataset(config, data.open_videos(config))
    samples = [clips[position] for position in range(8)]
    whole, cut = data.collate(samples).batch.frames, data.collate(samples, crop=16).batch.frames
    assert cut.shape == (*whole.shape[:3], 16, 16)
    places = []
    for frames, square in zip(whole, cut):
        windows = frames.unfold(2, 16, 1).unfold(3, 16, 1)
        (found, *_) = (windows == square[:, :, None, None]).all(-1).all(-1).all(0).all(0).nonzero().tolist()
        places.append(tuple(found))
    assert len(set(places)) > 1
    assert torch.equal(data.collate(samples[3:4], crop=16).batch.frames[0], cut[3])


@pytest.mark.parametrize(
    "options, message",
    [
        (["--config", "vidtok_kl_causal_488_5chn"], "no VidTok is called 'vidtok_kl_causal_488_5chn'"),
        (["--data.frame", "5"], "unknown key --data.frame; did you mean --data.frames?"),
        (["--model.cha", "5"], "a VidTok has no setting cha; did you mean ch?"),
        (["--data.root", "x"], "set exactly one of data.shards and data.root"),
        (["--data.height", "36"], "multiples of 8, not 36x32"),
        (["--data.height", "24"], "at least 32 pixels a side"),
        (["--data.crop", "64"], "data.crop must be at most data.height and data.width, not 64"),
        (["--data.crop", "20"], "multiples of 8, not 20x20"),
        (["--data.crop", "24"], "at least 32 pixels a side"),
        (["--fix_encoder", "true"], "fix_encoder needs weights"),
        (["--model.name", "vidtok_kl_noncausal_488_4chn"], "clips of a multiple of 4 frames"),
        (["--loss.lpips_vgg", "x"], "both of loss.lpips_vgg and loss.lpips_linear"),
        (["--train.max_steps", "0"], "train.max_steps must be at least 1"),
    ],
)
def test_configurations_that_cannot_be_right_are_refused(folder, options, message):
    with pytest.raises(ConfigError) as refused:
        parse_vidtok_arguments(["--config", str(folder / "small.yaml"), "--data.shards", "x", *options])
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["vidtok_stage1", "vidtok_stage2", "vidtok_shapes"])
def test_presets(name):
    path = f"pipelines/configs/{name}.yaml"
    config = parse_vidtok_arguments(["--config", path, "--data.shards", "x", "--weights", "y"]).config
    time = "noncausal" if name == "vidtok_shapes" else "causal"
    assert config.train.max_grad_norm == 20 and config.model["name"].startswith(f"vidtok_kl_{time}_488")
    if name != "vidtok_shapes":
        assert (config.train.lr, config.train.ema_decay, config.data.fps) == (1e-5, 0.999, 3)
        assert (config.loss.discriminator, config.loss.discriminator_start) == ("2d", 10_000)
        assert (config.fix_encoder, config.data.height) == ((True, 256) if name == "vidtok_stage2" else (False, 128))


def test_a_published_name_is_a_configuration():
    options = ["--config=vidtok_fsq_causal_488_4096", "--data.root", "x", "--train.max_steps", "1", "--model.ch", "16"]
    arguments = parse_vidtok_arguments(options)
    assert arguments.config.model == {"name": "vidtok_fsq_causal_488_4096", "ch": 16}
    assert arguments.preset == "vidtok_fsq_causal_488_4096" and arguments.ds_config.name == "zero2.json"


def test_user_errors_are_one_line(folder, one_rank):
    start = (COMMAND, "--config", folder / "small.yaml", "--data.shards")
    assert_user_error(called(*start, folder / "none", "--output", folder / "no"), "none", "vtok-shards build")
    assert not (folder / "no").exists()
    assert_user_error(called(*start, folder / "shards", "--output", one_rank), "already holds a run", "--resume auto")


def test_a_patchgan_has_its_smallest_picture():
    with torch.no_grad():
        assert PatchGAN(2, width=8)(torch.zeros(1, 3, 1, 32, 32)).shape == (1, 1, 2, 2)
