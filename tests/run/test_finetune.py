"""The one command: from a folder of clips to an exported model and a picture of before and after."""

import csv

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data_tools.shapes import render_clips
from pipelines import finetune
from pipelines.cli.parsing import parse_run_arguments
from pipelines.demo.picture import Panel, grid
from pipelines.engine import program
from pipelines.engine.run_control import Stopper
from pipelines.inference.load import load_run
from pipelines.inference.noted import require_same
from support.commands import called
from support.launch import assert_user_error, checked
from support.runs import log_of
from vtok.config import ConfigError


@pytest.fixture
def clips(tmp_path):
    """Videos with a .txt each, as users have them."""
    folder = tmp_path / "clips"
    render_clips(folder, 4, seed=9, split="train")
    with (folder / "captions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            (folder / row["path"]).with_suffix(".txt").write_text(row["caption"])
    (folder / "captions.csv").unlink()
    return folder


def test_a_dry_run_writes_nothing(clips, tmp_path):
    """It once packed and trained."""
    done = checked(called(finetune.main, clips, "--from", "shapes/vtok", "--output", tmp_path / "out", "--dry_run"))
    assert "parameters   " in done.stdout and "data         built when the run starts" in done.stdout
    inside = called(finetune.main, clips, "--from", "shapes/vtok", "--output", clips / "out")
    assert_user_error(inside, f"{clips / 'out'} lies in CLIPS, where its files would be taken for clips")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips"]


@pytest.mark.slow
def test_clips_to_an_export_and_a_picture_and_on_after_a_stop(clips, tmp_path, monkeypatch):
    output = tmp_path / "out"
    command = (
        finetune.main, clips, "--from", "shapes/vtok", "--output", output, "--samples", 1, "--denoising_steps", 2,
        "--train.epochs", 1, "--train.global_batch_size", 2, "--data.workers", 0,
    )  # fmt: skip

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(program, "leave", leave)
    with monkeypatch.context() as stopped:
        stopped.setattr(Stopper, "requested", lambda self: True)
        assert called(*command).returncode == 75
    assert len(log_of(output / "run")) == 1 and not (output / "export").exists()
    kept = {path: path.stat().st_mtime_ns for path in output.glob("*/*.mp4")}
    done = checked(called(*command))
    assert [line["step"] for line in log_of(output / "run")] == [1, 2]
    assert f"before and after  {output / 'before_after.gif'}" in done.stdout and f"{output / 'export'}" in done.stdout
    with Image.open(output / "before_after.gif") as picture:
        assert picture.n_frames == 9  # 3 s at the decoder's 3 frames per second
    before, after = (load_file(output / name / "videos.safetensors")["videos"] for name in ("before", "after"))
    assert before.shape == after.shape == (1, 9, 3, 32, 32) and not torch.equal(before, after)
    assert load_run(output / "export")[0].data.seconds == 3.0
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())

    again = checked(called(*command))
    assert "parameters" not in again.stdout and "starting from" not in again.stdout
    assert_user_error(called(*command, "--train.lr", 1e-3), "was begun with other train: choose another --output")


def test_what_a_user_can_mend_is_one_line(clips, tmp_path):
    new = ("--output", tmp_path / "out")
    assert_user_error(called(finetune.main, clips, *new), "name what to start from: --from WHERE")
    assert_user_error(called(finetune.main, clips, "--from", clips, *new), f"--from {clips} is no trained VTok")
    nowhere = called(finetune.main, tmp_path / "none", "--from", "shapes/vtok", *new)
    assert_user_error(nowhere, f"there are no clips in {tmp_path / 'none'}")
    drawn = called(finetune.main, clips, "--from", "shapes/vtok", *new, "--data.window", "drawn")
    assert_user_error(drawn, "set data.window to centred")
    for words in (["--data.shards", "x"], ["--data.shards=x"], ["--init_from=x"], ["--data_root=x"], ["--resume=auto"]):
        taken = called(finetune.main, clips, "--from", "shapes/vtok", *new, *words)
        assert_user_error(taken, f"vtok-finetune has no {words[0].partition('=')[0]}: it takes CLIPS")
    mixed = tmp_path / "x.yaml"
    mixed.write_text("train: {max_steps: 1}\ndata: {window: centred, mixture: [{shards: a}]}\n")
    refused = called(finetune.main, clips, f"--config={mixed}", *new)
    assert_user_error(refused, "vtok-finetune trains on CLIPS, not on data.mixture")
    assert not (tmp_path / "out").exists()


def test_an_earlier_start_that_says_nothing_is_one_line(tmp_path):
    for text in ("", "[1]", "{"):
        (tmp_path / "finetune.json").write_text(text)
        with pytest.raises(ConfigError, match="finetune.json does not say what was asked for: delete it if"):
            require_same(tmp_path / "finetune.json", {"seed": 0})


def test_an_option_and_its_value_may_be_one_word(clips, tmp_path):
    for words in (["--config", "pipelines/configs/demo.yaml"], ["--config=pipelines/configs/demo.yaml"]):
        own = ("--data.window", "centred", "--train.lr=1e-3", "--output", str(tmp_path / "out"))
        _, arguments = finetune.parse_arguments([str(clips), "--from", "shapes/vtok", *words, *own])
        assert (arguments.preset, arguments.config.train.lr) == ("demo", 1e-3)


def test_the_model_and_its_seconds_are_those_of_what_it_starts_from():
    own = finetune.settings("shapes/vtok", ["--train.lr", "1e-3"])
    config = parse_run_arguments(own).config
    assert (config.model.mllm.weights, config.init.weights, config.data.seconds) == ("shapes/vtok", "shapes/vtok", 3.0)
    assert config.model.tokeniser.residual_grid == 4 and config.train.lr == 1e-3 and not config.tiny_models
    named = finetune.settings("shapes/vtok", ["--config", "pipelines/configs/demo.yaml"])
    assert "--model" not in named and named[:2] == ["--config", "pipelines/configs/demo.yaml"]
    with pytest.raises(ConfigError, match="--from no/where is no trained VTok"):
        finetune.settings("no/where", [])


def test_a_panel_that_nobody_judged_has_no_mark():
    frames = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    plain, marked = (grid([Panel(frames, "a ball", mark)]) for mark in ("", "✓"))
    assert plain.size == marked.size and plain.tobytes() != marked.tobytes()
