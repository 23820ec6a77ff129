"""VBench: its totals, its prompts, the videos, ranks and resuming against a stand-in, and the real thing.

``VTOK_VBENCH=FOLDER pytest -n 0 -m slow tests/run/test_vbench.py`` runs the real VBench, in the environment that
``pipelines/evaluation/vbench/environment.sh FOLDER`` made.
"""

import csv
import json
import os
import sys

import av
import numpy as np
import pytest
import torch

from data_tools.video.media import save_mp4
from pipelines import evaluate
from pipelines.evaluation.vbench import run
from pipelines.evaluation.vbench.totals import DIMENSIONS, QUALITY, SEMANTIC, mean_of, totals
from pipelines.inference import generate
from pipelines.inference.generate import Wanted
from support.real_clips import CLIPS, needs_shared

# A row of VBench's public leaderboard, ModelScope, in percent, and its three totals there.
MODEL_SCOPE = {
    "subject_consistency": 89.87, "background_consistency": 95.29, "temporal_flickering": 98.28,
    "motion_smoothness": 95.79, "dynamic_degree": 66.39, "aesthetic_quality": 52.06, "imaging_quality": 58.57,
    "object_class": 82.25, "multiple_objects": 38.98, "human_action": 92.40, "color": 81.72,
    "spatial_relationship": 33.68, "scene": 39.26, "appearance_style": 23.39, "temporal_style": 25.37,
    "overall_consistency": 25.67,
}  # fmt: skip
PUBLISHED = {"quality": 78.05, "semantic": 66.54, "total": 75.75}

SUITE = [
    {"prompt_en": "In a still frame, a stop sign", "dimension": ["temporal_flickering"]},
    {"prompt_en": "a person swimming", "dimension": ["subject_consistency", "dynamic_degree"]},
    {"prompt_en": "a red bird, 1.5 m", "dimension": ["color"], "auxiliary_info": {"color": {"color": "red"}}},
]

# Stands in for VBench: scores a video by its size, and fails where weights would be missing.
STAND_IN = """
import json, os
class VBench:
    def __init__(self, device, full_info, output):
        self.info, self.output = json.load(open(full_info)), output
    def evaluate(self, videos_path, name, dimension_list, local, mode, prompt_list=()):
        (dimension,) = dimension_list
        assert local and name == dimension
        if dimension == "dynamic_degree":
            raise FileNotFoundError("raft-things.pth")
        if mode == "custom_input":
            names = os.listdir(videos_path)
            assert set(names) == set(prompt_list)
        else:
            prompts = [row["prompt_en"] for row in self.info if dimension in row["dimension"]]
            names = [f"{prompt}-{k}.mp4" for prompt in prompts for k in range(5)]
        found = [{"video_path": n, "video_results": os.path.getsize(f"{videos_path}/{n}") * 1.0} for n in names]
        mean = sum(each["video_results"] for each in found) / len(found) / 1e6
        json.dump({dimension: [mean, found]}, open(f"{self.output}/{name}_eval_results.json", "w"))
"""
# Stands in for torch there, whose import takes seconds.
TORCH = """
class cuda:
    is_available = staticmethod(lambda: False)
device = str
"""


@pytest.fixture
def environment(tmp_path):
    """An environment of the same form, with the stand-in."""
    folder = tmp_path / "environment"
    package = folder / "lib" / "python3.11" / "site-packages" / "vbench"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    (package.parent / "torch.py").write_text(TORCH)
    (package / "VBench_full_info.json").write_text(json.dumps(SUITE))
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{package.parent}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder


@pytest.fixture
def made(monkeypatch, tmp_path):
    """A model that writes videos of one frame. Returns what it was asked for."""
    asked = []

    def generate_videos(config, framework, wanted, *more):
        asked.extend(wanted)
        frames = torch.zeros(len(wanted), 1, 3, 16, 16, dtype=torch.uint8)
        for each, video in zip(wanted, frames):
            save_mp4(video, 8, each.path)
        return frames

    monkeypatch.setattr(run, "load_run", lambda checkpoint, ema: (None, None, 3))
    monkeypatch.setattr(generate, "generate_videos", generate_videos)
    return asked


def command(environment, output, *more):
    return ["vbench", "--environment", str(environment), "--output", str(output), *more]


def test_totals_are_those_of_the_leaderboard():
    scores = {name: score / 100 for name, score in MODEL_SCOPE.items()}
    for name, value in totals(scores).items():
        assert 100 * value == pytest.approx(PUBLISHED[name], abs=0.01)  # the dimensions are rounded there too
    assert len(QUALITY) == 7 and len(SEMANTIC) == 9 and scores.keys() == DIMENSIONS.keys()
    del scores["scene"]
    assert totals(scores)["quality"] == mean_of(QUALITY, scores) and totals(scores)["total"] is None
    assert totals(scores)["semantic"] is None and totals({})["quality"] is None


def test_the_table_of_vbenchs_own_results(tmp_path, capsys):
    halves = [dict(list(MODEL_SCOPE.items())[:7]), dict(list(MODEL_SCOPE.items())[7:])]
    files = [tmp_path / f"{k}_eval_results.json" for k in range(2)]
    for file, half in zip(files, halves):
        file.write_text(json.dumps({name: [score / 100, []] for name, score in half.items()}))
    evaluate.main(["vbench", "--results", *map(str, files)])
    table = capsys.readouterr().out
    for name, value in PUBLISHED.items():
        (line,) = (line for line in table.splitlines() if f"**{name}**" in line)
        assert float(line.split("**")[3]) == pytest.approx(value, abs=0.011)
    assert "| dynamic_degree         | 66.39     | 66.39      | 0.5" in table
    evaluate.main(["vbench", "--results", str(files[0])])
    assert "semantic: without object_class, multiple_objects" in capsys.readouterr().out
    files[1].write_text('{"scenery": [0.5, []]}')
    for wrong, message in [(files[1], "not of VBench's 16: scenery"), (files[0], "gives aesthetic_quality, ")]:
        with pytest.raises(SystemExit) as end:
            evaluate.main(["vbench", "--results", str(files[0]), str(wrong)])
        error = capsys.readouterr().err
        assert end.value.code == 2 and message in error and error.count("\n") == 1


def test_the_suite_over_ranks_and_resumed(environment, made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "PATIENCE", 0)
    output = tmp_path / "out"
    asked = ["--checkpoint", "shapes/vtok", "--dimensions", "color", "temporal_flickering", "subject_consistency"]
    given = command(environment, output, *asked, "--batch_size", "4", "--seed", "7")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    evaluate.main(given)
    assert "8 of 15 videos are still to come" in capsys.readouterr().out and len(made) == 7
    monkeypatch.setenv("RANK", "0")
    evaluate.main(given)  # makes the others and scores its share of the dimensions
    assert "1 of 3 answers are still to come" in capsys.readouterr().out and len(made) == 15
    monkeypatch.setenv("RANK", "1")
    evaluate.main(given)
    out = capsys.readouterr().out
    assert len(made) == 15 and "| color" in out and "quality: without background_consistency" in out

    names = {each.path.name for each in made}
    assert names == {f"{row['prompt_en']}-{k}.mp4" for row in SUITE for k in range(5)}
    rows = list(csv.DictReader((output / "videos.csv").open()))
    assert {row["path"]: int(row["seed"]) for row in rows} == {each.path.name: each.seed for each in made}
    assert len({row["seed"] for row in rows}) == 15
    report = json.loads((output / "report.json").read_text())
    assert report["videos"] == {"subject_consistency": 5, "temporal_flickering": 5, "color": 5}
    assert report["totals"] == {"quality": None, "semantic": None, "total": None}
    assert (output / "table.md").read_text().strip() in out
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(SystemExit):
        evaluate.main(given[:-1] + ["8"])
    assert "was begun with other seed" in capsys.readouterr().err


def test_a_rank_waits_for_the_videos_of_others_while_they_make_some(tmp_path, monkeypatch):
    """A rank that was done first once left its dimensions without scores."""
    videos = [Wanted(tmp_path / f"{number}.mp4", "a prompt", number) for number in range(3)]
    monkeypatch.setattr(run, "PATIENCE", 5)
    monkeypatch.setattr(run, "PAUSE", 0.01)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    others = iter(videos)
    with monkeypatch.context() as beside:
        beside.setattr(run.time, "sleep", lambda seconds: next(others).path.touch())
        assert run.missing_after_waiting(videos) == 0
    videos[1].path.unlink()
    monkeypatch.setattr(run, "PATIENCE", 0.1)
    assert run.missing_after_waiting(videos) == 1
    monkeypatch.setattr(run, "PATIENCE", 3600)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert run.missing_after_waiting(videos) == 1


def test_a_dimension_that_fails_does_not_stop_the_others(environment, made, tmp_path, capsys):
    given = command(environment, tmp_path / "out", "--checkpoint", "shapes/vtok", "--dimensions")
    with pytest.raises(SystemExit) as end:
        evaluate.main([*given, "color", "dynamic_degree"])
    said = capsys.readouterr()
    assert end.value.code == 2 and "dynamic_degree: VBench failed: FileNotFoundError: raft-things.pth" in said.err
    assert "VBench could not score dynamic_degree: see the logs" in said.err and "color: " in said.out
    assert (tmp_path / "out" / "answers" / "color.json").exists()


def test_own_prompts_and_given_videos(environment, made, tmp_path, capsys):
    """Prompts that cannot name a file are given to VBench beside the videos."""
    prompts = ["A dog / a cat.", "A long one " + "x" * 300]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    own = ["--prompts", str(tmp_path / "prompts.txt"), "--samples", "2", "--dimensions", "temporal_flickering"]
    evaluate.main(command(environment, tmp_path / "out", "--checkpoint", "shapes/vtok", *own))
    assert [(each.path.name, each.prompt) for each in made] == [
        (f"{row:06d}-{k}.mp4", prompt) for row, prompt in enumerate(prompts) for k in range(2)
    ]
    first = json.loads((tmp_path / "out" / "report.json").read_text())

    table = tmp_path / "table.jsonl"
    table.write_text("\n".join(json.dumps({"path": each.path.name, "prompt": each.prompt}) for each in made))
    given = ["--videos", str(tmp_path / "out" / "videos"), "--prompts", str(table), "--dimensions"]
    evaluate.main(command(environment, tmp_path / "given", *given, "temporal_flickering"))
    second = json.loads((tmp_path / "given" / "report.json").read_text())
    assert second["scores"] == first["scores"] and second["videos"] == {"temporal_flickering": 4}

    table.write_text('{"path": "x.mkv", "prompt": "A dog."}\n')
    wrong = {
        (*given, "color"): "judges color by its own prompts only",
        (*given, "temporal_flickering"): "the path 'x.mkv' names no .mp4",
        (
            "--videos",
            str(tmp_path),
            "--dimensions",
            "color",
        ): "lacks 5 of 5 videos, the first is a red bird, 1.5 m-0.mp4",
    }
    for arguments, message in wrong.items():
        with pytest.raises(SystemExit) as end:
            evaluate.main(command(environment, tmp_path / "wrong", *arguments))
        error = capsys.readouterr().err
        assert end.value.code == 2 and message in error and error.count("\n") == 1
    with pytest.raises(SystemExit):
        evaluate.main(command(tmp_path, tmp_path / "wrong", "--videos", str(tmp_path)))
    assert "is no environment with VBench" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate.main(command(environment, tmp_path / "wrong", "--checkpoint", "shapes/vtok", "--samples", "3"))
    assert "--samples goes with --prompts" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate.main(["vbench", "--videos", str(tmp_path)])
    assert "need --environment and --output" in capsys.readouterr().err


# --- the real thing ---

ENVIRONMENT = os.environ.get("VTOK_VBENCH", "")


def steadiness(video):
    """What temporal_flickering is: 1 less the mean absolute difference of neighbouring frames."""
    with av.open(str(video)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(np.float32)
    return 1 - float(np.abs(np.diff(frames, axis=0)).mean()) / 255


@needs_shared
@pytest.mark.slow
@pytest.mark.skipif(not ENVIRONMENT, reason="VTOK_VBENCH names no environment with VBench")
def test_real_vbench_of_clips_and_of_generated_videos(tmp_path):
    """The one dimension that needs no weights."""
    flickering = ["--dimensions", "temporal_flickering"]
    names = ["dog_catch_hevc_60fps.mp4", "carphone_pristine.mp4"]
    clips = [CLIPS / name for name in names]
    (tmp_path / "table.jsonl").write_text("\n".join(json.dumps({"path": name, "prompt": "x"}) for name in names))
    given = ["--videos", str(CLIPS), "--prompts", str(tmp_path / "table.jsonl"), *flickering]
    evaluate.main(command(ENVIRONMENT, tmp_path / "given", *given))
    report = json.loads((tmp_path / "given" / "report.json").read_text())
    expected = sum(map(steadiness, clips)) / 2
    assert report["scores"]["temporal_flickering"] == pytest.approx(expected, abs=2e-3)
    assert report["videos"] == {"temporal_flickering": 2}

    (tmp_path / "prompts.txt").write_text("A red square moves up.\nA blue circle stays where it is.\n")
    own = ["--checkpoint", "shapes/vtok", "--prompts", str(tmp_path / "prompts.txt"), "--samples", "2", *flickering]
    evaluate.main(command(ENVIRONMENT, tmp_path / "made", *own, "--steps", "2", "--seconds", "2", "--batch_size", "4"))
    report = json.loads((tmp_path / "made" / "report.json").read_text())
    videos = sorted((tmp_path / "made" / "videos").iterdir())
    assert len(videos) == 4
    assert report["scores"]["temporal_flickering"] == pytest.approx(sum(map(steadiness, videos)) / 4, abs=2e-3)
