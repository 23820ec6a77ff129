"""The main job on real videos, and the demo, as the README gives them. Minutes: run by .ci/run."""

import json
import math
import socket

import pytest
from PIL import Image

from data_tools.video.decode import validate
from pipelines import generate, understand
from support.commands import called
from support.launch import checked, deepspeed, run
from support.real_clips import CLIPS, needs_shared

ZERO3 = ("--ds_config", "deepspeed_configs/zero3.json")

pytestmark = pytest.mark.slow


@needs_shared
@pytest.mark.parametrize("steps, falls_to", [(20, 0.75), pytest.param(50, 0.6, marks=pytest.mark.long)])
def test_tiny_trains_on_two_ranks_on_real_clips_and_answers(tmp_path, steps, falls_to):
    packed = checked(run("vtok-shards", "build", CLIPS, "--output", tmp_path / "shards"))
    assert "packed 12 clips" in packed.stdout
    output = tmp_path / "out"
    data = ("--data.shards", tmp_path / "shards", "--output", output)
    tiny = ("--config", "pipelines/configs/tiny.yaml", "--train.max_steps", steps)
    checked(deepspeed(2, "pipelines/train.py", *tiny, *ZERO3, *data, timeout=600))

    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert len(log) == steps
    assert all(math.isfinite(line[name]) for line in log for name in ("loss_under", "loss_vis_lm", "loss_dec"))
    fifth = steps // 5
    first, last = (sum(line["loss"] for line in part) / fifth for part in (log[:fifth], log[-fifth:]))
    assert last < falls_to * first

    video = CLIPS / "coffee.mp4"
    asked = ("--checkpoint", output, "--video", video, "--question", "Describe this video.", "--json")
    assert json.loads(checked(called(understand.main, *asked)).stdout)["answer"]
    made = tmp_path / "x.mp4"
    checked(called(generate.main, "--checkpoint", output, "--prompt", "Ducks swim.", "--output", made,
                   "--seconds", 5, "--fps", 24, "--seed", 0, "--steps", 5))  # fmt: skip
    facts = validate(made)
    assert (facts.frames, facts.fps, facts.duration) == (120, 24, pytest.approx(5))


def test_the_demo_ends_with_captions_and_videos(tmp_path):
    """The README's first command, with fewer steps, while another run has the port that the launcher gives."""
    output = tmp_path / "demo"
    config = ("--config", "pipelines/configs/demo.yaml")
    short = ("--train.max_steps", 4, "--demo.clips", 16, "--output", output)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = ("--master_port", other.getsockname()[1])
        told = checked(run("deepspeed", *port, "pipelines/train.py", *config, *ZERO3, *short)).stdout
    lines = told[told.index("After 4 further steps") :].splitlines()
    captions, videos = ([line for line in lines if line[4:].startswith(word)] for word in ("it says", "asked"))
    assert len(captions) == len(videos) == 4
    assert sum(line.startswith("  ✓") for line in captions) >= 3
    assert "Tokens of a clip of 3 s: 16 of the key frame + 12 of motion = 28." in told
    assert validate(output / "prompt-0.mp4").frames == 9
    assert Image.open(output / "demo.png").size == (804, 8 * 136)
    assert Image.open(output / "demo.gif").n_frames == 9
