"""What a run tells of itself: its log, validation, examples, traces."""

import errno
import gzip
import io
import json
import math
import mmap
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_tools.errors import DataError
from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from data_tools.shards import ShardReader
from data_tools.video.media import encode_gif
from pipelines import train
from pipelines.cli.parsing import parse_run_arguments
from pipelines.config import DataConfig, MixtureConfig, RunConfig, TrainConfig, ValidationConfig
from pipelines.engine import memory
from pipelines.engine.logs import PatientFile
from pipelines.engine.outputs import HeldOut, find_held_out
from pipelines.engine.watching import console, utilisation
from pipelines.engine.watching.metrics import MEASURED, TAGS, Metrics
from pipelines.engine.watching.profiler import profiled
from pipelines.engine.watching.trackers.tensorboard import TensorBoard
from pipelines.engine.watching.utilisation import Utilisation
from pipelines.engine.watching.validation import Validation
from pipelines.metering.flops import sample_flops
from support.commands import called
from support.launch import checked
from vtok.assembly.build import drop_weights
from vtok.config import ConfigError

TINY = ("--config", "pipelines/configs/tiny.yaml", "--ds_config", "deepspeed_configs/zero3.json")
SHORT = ("--train.max_steps", 5, "--train.global_batch_size", 4, "--train.micro_batch_size", 2,
         "--checkpoint.every", 2, "--data.seconds", 1)  # fmt: skip
VALIDATED = ("--validation.every", 2, "--validation.captions", 1, "--validation.denoising_steps", 2)
LINE = dict(step=1, loss=2.5, lr=0.1, batch_digest="x", tokens_per_s=1234.0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """``train`` with ten clips and ``val`` with five, as ``vtok-shards build --val-share`` lays them out."""
    folder = tmp_path_factory.mktemp("data")
    for seed, (name, clips) in enumerate({"train": 10, "val": 5}.items()):
        render_clips(folder / f"{name}_clips", clips, seed)
        build_shards(folder / f"{name}_clips", folder / name, samples_per_shard=4, progress=False)
    return folder


@pytest.fixture(scope="module")
def runs(ranks, shards, tmp_path_factory):
    """Two runs on two ranks, without validation and with it."""
    folder = tmp_path_factory.mktemp("runs")
    common = (*TINY, *SHORT, "--data.shards", shards / "train", "--output")
    quiet = (*common, folder / "quiet", "--validation.every", 0)
    watched = (*common, folder / "watched", *VALIDATED, "--profile", "3")
    for options in (quiet, watched):
        checked(ranks.run(train.main, *options))
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_measured(log):
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in log]


def events(output):
    accumulator = EventAccumulator(str(output / "tensorboard"), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    return accumulator.Reload()


@pytest.mark.slow
def test_training_goes_on_as_if_it_had_not_been_validated(runs):
    quiet, watched = (lines(runs / name / "log.jsonl") for name in ("quiet", "watched"))
    assert [line["step"] for line in watched] == [1, 2, 3, 4, 5]
    assert without_measured(watched) == without_measured(quiet)
    assert (runs / "quiet/validation.jsonl").read_text() == ""


@pytest.mark.slow
def test_validation_is_written_down(runs):
    validated = lines(runs / "watched/validation.jsonl")
    assert [line["step"] for line in validated] == [2, 4, 5]  # and after the last step
    for line in validated:
        assert set(line) == {"step", "loss", "loss_under", "loss_vis_lm", "loss_dec", "samples", "digest"}
        assert line["loss"] == pytest.approx(line["loss_under"] + line["loss_vis_lm"] + line["loss_dec"], rel=1e-6)
        assert line["samples"] == 5
    assert len({line["digest"] for line in validated}) == 1

    # Under the average of the weights, which follows three updates by a thousandth each.
    fallen = validated[0]["loss_under"] - validated[-1]["loss_under"]
    log = lines(runs / "watched/log.jsonl")
    assert 0 < fallen < 0.05 < 0.2 < log[0]["loss_under"] - log[-1]["loss_under"]


@pytest.mark.slow
def test_tensorboard_holds_scalars_captions_and_videos(shards, runs):
    found = events(runs / "watched")
    log = lines(runs / "watched/log.jsonl")
    scalars = log[0].keys() - {"step", "batch_digest", "rank_s"}
    assert {TAGS[name] for name in scalars} <= set(found.Tags()["scalars"])
    assert [event.step for event in found.Scalars("loss/loss")] == [1, 2, 3, 4, 5]
    assert [event.step for event in found.Scalars("validation/loss_dec")] == [2, 4, 5]

    captions = found.Tensors("captions/000000000/text_summary")
    assert [event.step for event in captions] == [2, 4, 5]
    text = captions[0].tensor_proto.string_val[0].decode()
    assert "Describe this video." in text and ShardReader(shards / "val").read(0).meta["caption"] in text

    videos = found.Images("videos/000000000")
    assert [event.step for event in videos] == [2, 4, 5]
    gif = Image.open(io.BytesIO(videos[0].encoded_image_string))
    assert gif.size == (64, 64) and gif.n_frames == 8  # one second


@pytest.mark.slow
def test_memory_and_stalls_are_logged(runs):
    log = lines(runs / "watched/log.jsonl")
    assert all(0.1 < line["host_gb"] < 100 and 0 <= line["data_wait"] <= 1 for line in log)
    assert [line["checkpoint_stall"] > 0 for line in log] == [False, True, False, True, True]


@pytest.mark.slow
def test_the_trace_shows_the_chosen_steps(runs):
    (path,) = (runs / "watched/profile").iterdir()
    assert path.name == "rank0_steps_3-3.json.gz"
    trace = json.loads(gzip.open(path).read())
    names = {event["name"] for event in trace["traceEvents"]}
    assert {"aten::mm", "step 3"} <= names and not {"step 2", "step 4"} & names
    assert not (runs / "quiet/profile").exists()


@pytest.mark.slow
def test_one_rank_validates_to_the_same_figures_and_resuming_drops_the_later_ones(runs, shards, tmp_path):
    """Seven samples where there are five, a micro-batch that does not divide them, and no loader processes."""
    output = tmp_path / "out"
    shutil.copytree(runs / "watched", output)
    shutil.rmtree(output / "checkpoints/step_00000005")
    options = (*TINY, *SHORT, *VALIDATED, "--validation.samples", 7, "--train.micro_batch_size", 4, "--data.workers", 0)
    options += ("--data.shards", shards / "train", "--output", output, "--resume", "auto")
    checked(called(train.main, *options))
    ours, theirs = (lines(folder / "validation.jsonl") for folder in (output, runs / "watched"))
    assert [line["step"] for line in ours] == [2, 4, 5]
    for a, b in zip(ours, theirs):
        assert a["digest"] == b["digest"]
        for name in ("loss", "loss_under", "loss_vis_lm", "loss_dec"):
            assert a[name] == pytest.approx(b[name], rel=1e-5)


def test_the_batches_of_a_validation_do_not_show_in_its_figures(shards, framework):
    """Five samples in batches of two and of three, both padded, and of one; four of the five are others."""
    reader, figures = ShardReader(shards / "val"), {}
    for micro, samples in ((1, 5), (2, 5), (3, 5), (1, 4)):
        train = TrainConfig(max_steps=1, micro_batch_size=micro)
        section = ValidationConfig(samples=samples, captions=0, videos=0)
        config = RunConfig(train, model=framework.config, data=DataConfig(seconds=1, workers=0), validation=section)
        figures[micro, samples], captions, videos = Validation(
            config, [HeldOut(MixtureConfig("val"), reader)], framework
        ).run(framework)
        assert figures[micro, samples]["samples"] == samples and not captions + videos
    assert framework.training and not framework.decoder.training  # as they were
    assert len({line.pop("digest") for line in figures.values()}) == 2
    for other in (figures[2, 5], figures[3, 5]):
        assert other == pytest.approx(figures[1, 5], rel=1e-5)
    assert figures[1, 4]["loss"] != pytest.approx(figures[1, 5]["loss"], rel=1e-5)


def test_no_video_is_made_of_an_empty_caption(framework, tmp_path):
    render_clips(tmp_path / "in", 4, seed=0)
    texts = ("Who?,It.,", "Who?,It.,", ",,A circle moves.", "Who?,It.,A square moves.")
    rows = [f"{number:03d}.mp4,{text}" for number, text in enumerate(texts)]
    (tmp_path / "in/captions.csv").write_text("\n".join(["path,question,answer,caption", *rows]))
    build_shards(tmp_path / "in", tmp_path / "out", progress=False)
    section = ValidationConfig(captions=1, videos=2)
    config = RunConfig(TrainConfig(max_steps=1), model=framework.config, data=DataConfig(seconds=1), validation=section)
    examples = Validation(config, [HeldOut(MixtureConfig("out"), ShardReader(tmp_path / "out"))], framework)
    assert [example.question for example in examples.to_caption] == ["Who?"]
    assert [example.caption for example in examples.to_draw] == ["A circle moves.", "A square moves."]


def config_with(**validation):
    return RunConfig(train=TrainConfig(max_steps=1), validation=ValidationConfig(**validation))


def test_the_held_out_split_is_the_val_beside_train(shards, tmp_path):
    train, val = str(shards / "train"), str(shards / "val")
    assert find_held_out(config_with(), [train]) == [val]
    assert find_held_out(config_with(every=0), [train]) == []
    assert find_held_out(config_with(shards=train), [val]) == [train]
    assert find_held_out(config_with(), [val]) == [None]
    mixed = config_with()
    mixed.data.mixture = [MixtureConfig(train), MixtureConfig(val), MixtureConfig(val, validation=train)]
    assert find_held_out(mixed, [train, val, val]) == [val, None, train]
    mixed.validation.shards = val
    with pytest.raises(ConfigError, match="set validation.shards, or the validation of datasets"):
        find_held_out(mixed, [train, val, val])
    with pytest.raises(ConfigError, match="no held-out split: pass --validation.shards"):
        find_held_out(config_with(every=5), [str(tmp_path / "train")])
    with pytest.raises(DataError, match="no does not exist: run `vtok-shards build"):
        find_held_out(config_with(shards=str(tmp_path / "no")), [train])


def test_the_held_out_split_of_an_address_is_its_val_or_a_line_says_that_there_is_none(shards, tmp_path, capsys):
    config = config_with()
    config.data.cache_dir = str(tmp_path / "cache")
    for address in (f"file://{shards}/train", f"file://{shards}/train/"):
        assert find_held_out(config, [address]) == [f"file://{shards}/val"]
    assert find_held_out(config, [f"file://{shards}/val"]) == [None]
    assert capsys.readouterr().out == ""
    alone = f"file://{shutil.copytree(shards / 'train', tmp_path / 'train')}"
    assert find_held_out(config, [alone]) == [None]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{alone} has no validation: file://{tmp_path}/val/manifest.json cannot be fetched")
    config.validation.every = 5
    with pytest.raises(ConfigError, match="no held-out split: pass --validation.shards"):
        find_held_out(config, [alone])


def test_profile_takes_steps_or_one_step():
    assert parse_run_arguments([*map(str, TINY), "--profile", "3-5"]).profile == range(3, 6)
    assert parse_run_arguments([*map(str, TINY), "--profile", "7"]).profile == range(7, 8)
    assert parse_run_arguments([*map(str, TINY)]).profile is None
    for steps in ("5-3", "0-2", "x", "3-", "1-2-3"):
        with pytest.raises(ConfigError, match="--profile takes steps"):
            parse_run_arguments([*map(str, TINY), "--profile", steps])


@pytest.mark.slow
def test_a_run_that_stops_among_the_chosen_steps_leaves_their_trace(tmp_path):
    for step in profiled(range(1, 10), range(2, 6), tmp_path):
        torch.ones(3).sum()
        if step == 3:
            break
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["rank0_steps_2-3.json.gz"]
    assert list(profiled(range(1, 4), None, tmp_path)) == [1, 2, 3]
    with pytest.raises(ConfigError, match="--profile 10-12: the run ends with step 9"):
        next(profiled(range(1, 10), range(10, 13), tmp_path))


def test_figures_that_are_no_numbers_are_null(tmp_path):
    metrics = Metrics(tmp_path, 0, 2)
    metrics.write(LINE | {"loss": math.nan, "grad_norm": math.inf})
    metrics.close()
    (line,) = lines(tmp_path / "log.jsonl")
    assert line["loss"] is None and line["grad_norm"] is None and line["lr"] == 0.1


class Disk:
    """A file on a disk that is full at times: a write fails, after a part of it was written."""

    full = False

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data: bytes) -> int:
        if not self.full:
            return self.file.write(data)
        if len(data) > 10:
            return self.file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk(monkeypatch):
    """The disk of all files that wait for it."""
    start = Path.open

    def on_disk(path, mode="r", **options):
        file = start(path, mode, **options)
        return Disk(file) if mode == "ab" else file

    monkeypatch.setattr(Path, "open", on_disk)
    return Disk


def test_what_is_logged_while_the_disk_is_full_waits_and_is_told_of(disk, tmp_path, capsys, monkeypatch):
    metrics = Metrics(tmp_path, 0, 4, [TensorBoard(tmp_path, 0, {})])
    for step in range(1, 5):
        monkeypatch.setattr(disk, "full", step in (2, 3))
        metrics.write(LINE | {"step": step})
        if step == 3:
            assert [line["step"] for line in lines(tmp_path / "log.jsonl")] == [1]
    metrics.close()
    assert [line["step"] for line in lines(tmp_path / "log.jsonl")] == [1, 2, 3, 4]
    accumulator = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in accumulator.Scalars("loss/loss")] == [1, 2, 3, 4]
    told = capsys.readouterr().err
    assert told.count("log.jsonl (No space left on device): the run goes on and what it logs waits") == 1
    assert told.count("log.jsonl can be written to again: nothing is lost") == 1


def test_a_log_whose_file_cannot_be_opened_waits_and_is_opened_again(tmp_path, capsys, monkeypatch):
    def lost(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as mount:
        mount.setattr(Path, "open", lost)
        log = PatientFile(tmp_path / "bad.jsonl")
        log.write(b"1\n")
        log.flush()
    assert not (tmp_path / "bad.jsonl").exists()
    log.write(b"2\n")
    log.close()
    assert (tmp_path / "bad.jsonl").read_bytes() == b"1\n2\n"
    told = capsys.readouterr().err
    assert told.count("Stale file handle") == told.count("can be written to again") == 1


def test_another_error_of_a_log_is_raised(disk, tmp_path, monkeypatch):
    file = PatientFile(tmp_path / "x")
    monkeypatch.setattr(disk, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.EFBIG, "File too large")))
    file.write(b"x")
    with pytest.raises(OSError, match="File too large"):
        file.flush()


def test_without_a_terminal_a_line_is_printed_now_and_then(capsys, monkeypatch):
    clock = iter([0.0, 10.0, 20.0, 45.0, 50.0])
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = console.Console(step=10, max_steps=100)
    for step in (11, 12, 13, 14):
        progress.step(LINE | {"step": step, "mfu": 0.412})
    progress.validation(14, {"loss": 2.0, "loss_dec": 1.5, "samples": 64, "digest": "x"})
    progress.close()
    assert capsys.readouterr().err.splitlines() == [
        "step 11/100: loss 2.500, tokens/s 1.23k, mfu 41.2%, 14:50 left",
        "step 13/100: loss 2.500, tokens/s 1.23k, mfu 41.2%, 21:45 left",
        "validation after step 14, 64 samples: loss 2.000, loss_dec 1.500",
    ]


def test_utilisation_is_the_share_of_the_peak_of_all_ranks(framework, monkeypatch):
    config = RunConfig(TrainConfig(max_steps=1, precision="fp32"), model=framework.config, data=DataConfig(seconds=1))
    monkeypatch.setattr(utilisation, "device_peak", lambda device, dtype: 1e12)
    parts = sample_flops(config, framework).values()
    watched = Utilisation(config, framework, ranks=4)
    shares, of_half = watched.at(samples_per_s=2.0), watched.at(2.0, cost=watched.flops.hardware / 2)
    assert of_half == pytest.approx({name: share / 2 for name, share in shares.items()})
    assert shares["mfu"] == pytest.approx(2 * sum(part.model for part in parts) / 4e12)
    assert shares["hfu"] == pytest.approx(2 * sum(part.hardware for part in parts) / 4e12)


def test_utilisation_counts_what_the_run_computes(framework, monkeypatch):
    """Captions as long as the data's, and no encoder whose output all batches bring."""
    config = RunConfig(TrainConfig(max_steps=1, precision="fp32"), model=framework.config, data=DataConfig(seconds=1))
    monkeypatch.setattr(utilisation, "device_peak", lambda device, dtype: 1e12)
    short, long = (
        Utilisation(config, framework, 1, ["a red ball " * times, "a red ball " * times]).flops.model
        for times in (1, 20)
    )
    assert short < long
    whole = sample_flops(config, framework)
    drop_weights(framework.tokeniser.feature_extractor)
    assert whole["feature_extractor"].model > 0
    assert sample_flops(config, framework) == {
        name: flops for name, flops in whole.items() if name != "feature_extractor"
    }


def test_the_peak_is_the_data_sheet_s_or_measured(monkeypatch):
    gpu, names = torch.device("cuda", 0), {"NVIDIA H100 PCIe": 756e12, "NVIDIA H100 80GB HBM3": 989e12,
                                           "NVIDIA GH200 480GB": 989e12, "NVIDIA A100-SXM4-40GB": 312e12}  # fmt: skip
    for name, peak in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        assert utilisation.device_peak(gpu, torch.bfloat16) == peak
    measured = []
    monkeypatch.setattr(utilisation, "measured_peak", lambda *what: measured.append(what) or 1.0)
    for name in ("NVIDIA A10", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"):  # not listed, and a part of a card
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        assert utilisation.device_peak(gpu, torch.bfloat16) == 1
    utilisation.device_peak(gpu, torch.float32)
    assert measured == [(gpu, torch.bfloat16)] * 2 + [(gpu, torch.float32)]


def test_a_peak_is_measured_with_matrices_as_large_as_the_device_is_quick(monkeypatch):
    sizes = []
    monkeypatch.setattr(utilisation, "SECONDS", 0.001)
    monkeypatch.setattr(utilisation.F, "linear", lambda a, b: sizes.append(len(a)))
    assert len(list(utilisation.product_rates(torch.device("meta"), torch.bfloat16))) == len(set(sizes)) == 6
    assert max(sizes) == 8192
    monkeypatch.setattr(utilisation, "LONG", 0)
    assert len(list(utilisation.product_rates(torch.device("meta"), torch.bfloat16))) == 1


def test_a_cpu_s_peak_in_bf16_is_no_less_than_in_fp32():
    """Where it has no instructions for it, products in bf16 alone would be a hundred times too slow: 152 % of it."""
    in_fp32, in_bf16 = (
        utilisation.measured_peak(torch.device("cpu"), dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    assert 1e8 < in_fp32 < 1e15 and in_bf16 > in_fp32 / 4  # other processes take turns with this one


def test_a_run_that_is_faster_than_its_peak_has_no_utilisation(framework, monkeypatch):
    config = RunConfig(TrainConfig(max_steps=1, precision="fp32"), model=framework.config, data=DataConfig(seconds=1))
    monkeypatch.setattr(utilisation, "device_peak", lambda device, dtype: 1e6)
    shares = Utilisation(config, framework, ranks=1).at(samples_per_s=1e6)
    assert shares == {"mfu": None, "hfu": None}
    assert "mfu" not in console.brief(LINE | shares)


def test_host_memory_is_that_of_this_process():
    before = memory.used_gb()["host_gb"]
    # New pages from the kernel: a tensor may get memory that an earlier test of this process had, and gave back.
    with mmap.mmap(-1, 200_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(b"\1" * len(held))
        assert memory.used_gb()["host_gb"] - before == pytest.approx(0.2, abs=0.02)
    assert memory.used_gb().keys() == {"host_gb"} or torch.cuda.is_available()


def test_a_gif_holds_every_frame_at_its_rate():
    frames = torch.stack([torch.full((3, 16, 32), 40 * index, dtype=torch.uint8) for index in range(5)])
    gif = Image.open(io.BytesIO(encode_gif(frames, fps=8)))
    assert (gif.size, gif.n_frames, gif.info["loop"]) == ((32, 16), 5, 0)
    assert gif.info["duration"] == pytest.approx(125, abs=5)  # a GIF counts in hundredths of a second
    for index in range(5):
        gif.seek(index)
        assert abs(gif.convert("RGB").getpixel((3, 3))[0] - 40 * index) <= 4
