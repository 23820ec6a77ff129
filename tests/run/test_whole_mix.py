"""A run on all kinds of samples: real clips, lying and standing, shapes of 1 to 8 s, images and texts, in buckets."""

import json
import os
import shutil
import signal
import subprocess

import pytest
from PIL import Image

from data_tools.packing import build_shards
from data_tools.packing.prepare import Recipe
from data_tools.packing.transcode import Encoding
from data_tools.shapes import render_clips
from pipelines.engine.ports import free_port
from support.encoded import ffmpeg, needs_ffmpeg
from support.ends import wait_for
from support.launch import REPO, checked, deepspeed, environment, python
from support.real_clips import CLIPS, needs_shared
from support.runs import CONFIG, log_of, ranks, steps_done, without_rates

pytestmark = pytest.mark.long
STEPS = 12
RUN = ("pipelines/train.py", "--config", CONFIG, "--ds_config", "deepspeed_configs/zero3.json", "--data.shards", "null",
       "--train.max_steps", STEPS, "--train.global_batch_size", 4, "--train.micro_batch_size", 2, "--checkpoint.every",
       4, "--data.seconds", 8, "--data.buckets", "auto", "--validation.every", 0, "--train.precision", "fp32",
       "--track", "[]")  # fmt: skip


def write_rows(folder, rows):
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))


def real(folder):
    rows = []
    for clip in sorted(CLIPS.glob("*.mp4")):
        shutil.copy(clip, folder / clip.name)
        ffmpeg("-t", 6, "-i", clip, "-vf", "transpose=1", "-an", "-crf", 28, folder / f"tall_{clip.name}")
        rows += [{"path": name, "caption": f"It is {clip.stem}."} for name in (clip.name, f"tall_{clip.name}")]
    write_rows(folder, rows)


def shapes(folder):
    rows = []
    for seconds in range(1, 9):
        render_clips(folder / str(seconds), 3, seed=seconds, frames=8 * seconds, fps=8)
        rows += [{"path": f"{seconds}/{n:03d}.mp4", "caption": f"It lasts {seconds} s."} for n in range(3)]
    write_rows(folder, rows)


def images(folder):
    for name, size in {"wide": (120, 40), "high": (30, 90), "square": (64, 64), "large": (200, 120)}.items():
        Image.new("RGB", size, "red").save(folder / f"{name}.png")
    write_rows(folder, [{"image": f"{name}.png", "caption": "Red."} for name in ("wide", "high", "square", "large")])


def texts(folder):
    said = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]
    write_rows(folder, [{"messages": said * turns} for turns in (1, 2, 3)])


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    folder, parts = tmp_path_factory.mktemp("mix"), []
    for weight, make in ((3, real), (3, shapes), (1, images), (1, texts)):
        source, packed = folder / make.__name__, folder / f"{make.__name__}_shards"
        source.mkdir()
        make(source)
        done = build_shards(source, packed, 16, progress=False, recipe=Recipe(encoding=Encoding(short_side=64)))
        assert done.packed and not done.rejected
        parts.append({"shards": str(packed), "weight": weight, "name": make.__name__})
    return json.dumps(parts)


@needs_shared
@needs_ffmpeg
def test_one_rank_two_ranks_and_a_killed_one_have_one_curve(mixture, tmp_path):
    """Of two ranks one is killed, and the run goes on. The loader takes at most 2 % of the steps."""
    one, two = tmp_path / "one", tmp_path / "two"
    settings = (*RUN, "--data.mixture", mixture, "--output")
    checked(python(*settings, one))
    expected = log_of(one)
    command = ["deepspeed", "--num_gpus", "2", "--master_port", str(free_port()), *map(str, settings), str(two)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen(command, cwd=REPO, env=environment(), start_new_session=True, **quiet)
    wait_for(lambda: steps_done(two) >= 6 or run.poll() is not None, 300)
    os.kill(ranks(two)[1].pid, signal.SIGKILL)
    run.wait()
    assert steps_done(two) < STEPS
    checked(deepspeed(2, *settings, two, "--resume", "auto"))
    for ours, theirs in zip(without_rates(log_of(two)), without_rates(expected), strict=True):
        assert ours["batch_digest"] == theirs["batch_digest"]
        for name in ("loss", "loss_under", "loss_vis_lm", "loss_dec", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5)
    waited = sum(line["data_wait"] for line in expected[1:])
    assert waited <= 0.02 * sum(4 / line["samples_per_s"] for line in expected[1:])
