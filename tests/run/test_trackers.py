"""Trackers: each one's own offline files tell the figures, captions and videos of a run and of its resumption."""

import json
import os
import struct
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch

from pipelines import train
from pipelines.config import RunConfig, TrainConfig
from pipelines.engine.watching import trackers
from pipelines.engine.watching.examples import Caption, Video
from pipelines.engine.watching.metrics import Metrics
from pipelines.engine.watching.trackers import flat, hosted, open_trackers
from pipelines.engine.watching.trackers.base import Tracker
from support.commands import called, environment_of
from support.launch import assert_user_error
from support.runs import CONFIG
from vtok.config import ConfigError

LINE = dict(loss=2.5, lr=0.1, grad_norm=1.0, tokens_per_s=1234.0, data_wait=0.0, samples_per_s=2.0, batch_digest="x")
needs = lambda name: pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed")  # noqa: E731
CAPTIONS = [Caption("clip7", "What?", "A red ball & a box.", "A blue ball.")]
VIDEOS = [Video("clip8", "A ball rolls.", torch.zeros(3, 3, 16, 16, dtype=torch.uint8), 2.0)]


class Recording(Tracker):
    """Keeps what it is shown."""

    def __init__(self, output, step, settings):
        self.settings, self.shown = settings, []

    def scalars(self, values, step):
        self.shown.append((step, dict(values)))

    def text(self, tag, text, step):
        self.shown.append((step, tag, text))

    def video(self, tag, video, step):
        self.shown.append((step, tag, video.prompt))

    def close(self):
        self.shown.append("closed")


def track(name, output, **variables):
    """A run of two steps with a validation, and its resumption for a third step, with these environment variables."""
    with environment_of(os.environ | variables):
        return tracked(name, output)


def tracked(name, output):
    for first, last in ((1, 2), (3, 3)):
        opened = open_trackers([name], output, first - 1, flat({"train": {"lr": 0.1}, "seed": 0, "none": None}))
        metrics = Metrics(output, first - 1, 3, opened)
        for step in range(first, last + 1):
            metrics.write(LINE | {"step": step, "loss": 1.0 / step})
            if step == 2:
                metrics.validation(step, {"loss": 0.25, "samples": 1, "digest": "x"}, CAPTIONS, VIDEOS)
        metrics.close()
    return opened[0]


def test_metrics_go_to_every_tracker_and_text_of_the_log_does_not(tmp_path, monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", Recording)
    shown = track("mlflow", tmp_path).shown
    assert shown == [(3, {"loss/loss": 1 / 3, "optim/lr": 0.1, "optim/grad_norm": 1.0, "speed/tokens_per_s": 1234.0,
                          "speed/data_wait": 0.0, "speed/samples_per_s": 2.0}), "closed"]  # fmt: skip


def test_a_tracker_that_is_not_installed_is_one_line_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "wandb" else find_spec(name))
    asked = ("--config", CONFIG, "--data.shards", tmp_path / "none", "--output", tmp_path / "out")
    for more in ((), ("--dry_run",)):
        result = called(train.main, *asked, "--track", "[tensorboard, wandb]", *more)
        assert_user_error(result, "track: wandb is not installed: pip install wandb")
    assert not list(tmp_path.iterdir())
    assert_user_error(called(train.main, *asked, "--track", "[tensorbord]"), "track")
    assert RunConfig(TrainConfig(max_steps=1)).track == ["tensorboard"]


class Broken(hosted.Hosted):
    name = "json"  # a package that is there

    def options(self, output, run_id):
        return {}

    def run_id(self):
        return "7"


def test_a_tracker_whose_server_is_away_costs_a_line_and_not_the_run(tmp_path, monkeypatch, capsys):
    class Away:
        def __init__(self, project):
            self.project = project

        def start(self):
            pass

        def store_init_configuration(self, values):
            pass

        def log(self, values, step):
            raise ConnectionError("no route to host\nand more")

        finish = start

    monkeypatch.setitem(hosted.LOGGER_TYPE_TO_CLASS, "json", Away)
    tracker = Broken(tmp_path, 0, {})
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"json": "7"}
    tracker.scalars({"loss": 1.0}, 1)
    tracker.scalars({"loss": 1.0}, 2)
    tracker.close()
    assert capsys.readouterr().err == "warning: json lost something: no route to host\n"
    monkeypatch.setattr(Away, "start", lambda self: 1 / 0)
    with pytest.raises(ConfigError, match="track: json cannot be started: division by zero"):
        Broken(tmp_path, 0, {})


def records(log):
    """The records of a wandb log, in blocks of 32 KB as LevelDB has them: each piece behind checksum, size and kind."""
    at, record = 7, b""
    while at + 7 <= len(log):
        if (left := -at % 2**15) < 7:  # the rest of a block that has no room for a piece's header
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", log, at)
        record += log[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


@needs("wandb")
def test_wandb(tmp_path):
    track("wandb", tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    messages = import_module("wandb.proto.wandb_internal_pb2")
    ids, losses, texts, files = set(), {}, set(), []
    for path in sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb")):
        for data in records(path.read_bytes()):
            record = messages.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                losses |= {record.history.step.num: json.loads(items["loss/loss"])} if "loss/loss" in items else {}
                texts |= {name.rpartition("/")[0] for name in items if name.startswith("captions/")}
        files += [file.suffix for file in path.parent.glob("files/media/**/*") if file.is_file()]
    assert ids == {json.loads((tmp_path / "trackers.json").read_text())["wandb"]}
    assert losses == {1: 1.0, 2: 0.5, 3: 1 / 3}
    assert texts == {"captions/clip7"} and sorted(files) == [".gif", ".html", ".html"]


@needs("mlflow")
def test_mlflow(tmp_path):
    track("mlflow", tmp_path)
    mlflow = import_module("mlflow")
    run = json.loads((tmp_path / "trackers.json").read_text())["mlflow"]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    history = {metric.step: metric.value for metric in client.get_metric_history(run, "loss/loss")}
    assert history == {1: 1.0, 2: 0.5, 3: 1 / 3}
    assert client.get_run(run).data.params == {"train.lr": "0.1", "seed": "0", "none": "None"}
    assert len(client.search_runs([client.get_run(run).info.experiment_id])) == 1
    (caption,) = client.list_artifacts(run, "captions/clip7")
    text = client.download_artifacts(run, caption.path, str(tmp_path))
    assert "A red ball & a box." in open(text).read()
    kept = sorted(file.path.rpartition(".")[2] for file in client.list_artifacts(run, "videos/clip8"))
    assert kept == ["gif", "md"]


@needs("trackio")
def test_trackio(tmp_path):
    track("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    storage = import_module("trackio.sqlite_storage")
    run = json.loads((tmp_path / "trackers.json").read_text())["trackio"]
    logs = storage.SQLiteStorage.get_logs("vtok", run)
    assert {log["step"]: log["loss/loss"] for log in logs if "loss/loss" in log} == {1: 1.0, 2: 0.5, 3: 1 / 3}
    assert storage.SQLiteStorage.get_runs("vtok") == [run]
    told = [log["captions/clip7"] for log in logs if "captions/clip7" in log]
    assert len(told) == 1 and "A red ball & a box." in str(told[0])
    assert [log["videos/clip8/video"]["_type"] for log in logs if "videos/clip8/video" in log] == ["trackio.video"]
    assert len(list((tmp_path / "trackio").rglob("*.gif"))) == 1


@needs("swanlab")
def test_swanlab(tmp_path):
    track("swanlab", tmp_path, SWANLAB_MODE="offline")
    run = json.loads((tmp_path / "trackers.json").read_text())["swanlab"]
    starts = sorted((tmp_path / "swanlog").glob("run-*"))
    assert [start.name.rpartition("-")[2] for start in starts] == [run, run]
    assert all(b"loss/loss" in (start / f"run-{run}.swanlab").read_bytes() for start in starts)
    (caption, prompt) = sorted(path.read_text() for path in starts[0].glob("media/text/*.txt"))
    assert "A red ball & a box." in caption and prompt == "A ball rolls."
    assert len(list(starts[0].glob("media/**/*.gif"))) == 1
