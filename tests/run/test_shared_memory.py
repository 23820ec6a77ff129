"""/dev/shm, of which a container has 64 MB by default: what a run needs there is said before it is missing."""

import re
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest

from data_tools.errors import BadVideo
from data_tools.video.views import View, one_shape
from pipelines.engine import cpu_op, shared_memory
from pipelines.engine.loading import in_flight
from support.launch import REPO, assert_user_error, checked, run
from vtok.config import ConfigError
from vtok.motion_codec import motion_vectors

CAN_MOUNT = subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
with_own_mounts = pytest.mark.skipif(not CAN_MOUNT, reason="needs mounts of its own (unshare --mount)")


class Clips:
    """As much of the paper's dataset as matters here; the first clip cannot be read."""

    shapes = [one_shape(5.0, View(6, 31, 336, 336), View(24, 121, 320, 576))]
    stored = frozenset()
    transform = None
    most_media = 1

    def __len__(self):
        return 2

    @property
    def reader(self):
        return self

    def read(self, row):
        if row == 0:
            raise BadVideo("not_a_video", "0")
        return SimpleNamespace(extras={"features": b"x" * 1000, "latents": b"x" * 500})


def test_what_a_sample_takes_is_its_views_or_what_is_stored_in_their_place():
    own = Clips()
    frames, video = 31 * 3 * 336 * 336, 121 * 3 * 320 * 576
    assert in_flight.sample_bytes(own) == frames + video
    own.stored = frozenset({"video"})
    assert in_flight.sample_bytes(own) == frames + 1500  # of the first clip that can be read
    own.shapes, own.stored = [one_shape(5.0, View(6, 31, 336, 336), None)], frozenset()
    assert in_flight.sample_bytes(own) == frames
    own.transform = SimpleNamespace(vectors_of=partial(motion_vectors, height=20, width=36))
    vectors = 30 * 2 * 20 * 36 * 4
    assert in_flight.sample_bytes(own) == frames + vectors
    own.most_media = 4  # in one conversation
    assert in_flight.sample_bytes(own) == 4 * (frames + vectors)
    own.shapes = [one_shape(5.0, View(6, 31, 336, 336), View(24, 121, 320, 576))]
    assert in_flight.sample_bytes(own) == 4 * (frames + vectors) + video  # a conversation has one stand-in at most


def test_the_paper_s_run_on_eight_gpus_needs_more_than_a_container_has(monkeypatch):
    monkeypatch.setenv("LOCAL_SIZE", "8")
    monkeypatch.setattr(shared_memory.os, "statvfs", lambda _: SimpleNamespace(f_bavail=1 << 14, f_frsize=1 << 12))
    own = Clips()
    needed = 8 * 12 * (31 * 3 * 336 * 336 + 121 * 3 * 320 * 576)
    with pytest.raises(ConfigError) as raised:
        in_flight.require_room(own, 1, workers=2)
    assert str(raised.value) == (
        f"/dev/shm has 67 MB free, but the loader processes of this machine's ranks (8) need {needed / 1e6:,.0f} MB: "
        "give the container more (docker run --shm-size 9g), or set --data.workers 0"
    )
    in_flight.require_room(own, 1, workers=0)


@pytest.mark.slow
@with_own_mounts
@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.long), 2])
def test_loader_processes_hold_no_more_than_is_planned(batch):
    worker = REPO / "tests/support/in_flight_worker.py"
    result = checked(run("unshare", "--mount", sys.executable, worker, batch))
    most, planned = map(int, re.search(r"MOST (\d+) PLANNED (\d+)", result.stdout).groups())
    assert planned / 2 < most <= planned


@pytest.mark.slow
@with_own_mounts
def test_a_container_s_default_is_too_little_for_a_rank_on_a_cpu():
    """64 MiB, of which DeepSpeed's collectives would take 66: a bus error, as it was."""
    mount = "mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "
    train = f"{sys.executable} pipelines/train.py --config pipelines/configs/tiny.yaml --output /nowhere/out"
    result = run("unshare", "--mount", "bash", "-c", mount + train + " --ds_config deepspeed_configs/zero3.json")
    needed = f"{cpu_op.BUFFER / 1e6:.0f} MB"
    assert_user_error(result, "/dev/shm has 67 MB free", f"need {needed}", "--shm-size")
