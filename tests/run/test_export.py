"""Where an export can be written: the folder appears with the file that makes it an export last."""

import os

import pytest
import torch

from pipelines import export
from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from support.commands import called
from support.launch import assert_user_error, checked
from support.runs import write_run
from support.tiny import model_config
from vtok.assembly.build import build_framework
from vtok.assembly.pretrained import CONFIG, from_pretrained


@pytest.fixture(scope="module")
def run(tiny_models, tmp_path_factory):
    """A finished run of the tiny models."""
    config = parse_run_arguments(["--config", str(PRESETS / "tiny.yaml")]).config
    config.tiny_models, config.model = False, model_config(tiny_models)
    torch.manual_seed(0)
    return write_run(tmp_path_factory.mktemp("run"), config, build_framework(config.model).eval())


def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return "."


def linked(folder, monkeypatch):
    link = folder.with_name("link")
    link.symlink_to(folder)
    return link


def left_unfinished(folder, monkeypatch):
    (folder / ".part").mkdir()
    (folder / ".part" / "half.safetensors").write_bytes(b"half")
    return folder


@pytest.mark.parametrize("named", [here, linked, left_unfinished])
def test_an_empty_folder_is_filled_and_not_replaced(run, tmp_path, monkeypatch, named):
    """It may be a mount point, the working directory or a link's target. No name leads to a new folder then."""
    folder = tmp_path / "folder"
    folder.mkdir()
    before = folder.stat().st_ino
    moved = []
    monkeypatch.setattr(os, "replace", lambda a, b, real=os.replace: (moved.append(b), real(a, b)))
    with monkeypatch.context() as changed:
        checked(called(export.main, "--checkpoint", run, "--output", named(folder, changed)))
    assert folder.stat().st_ino == before and not list(tmp_path.glob("*.part")) and not (folder / ".part").exists()
    assert moved[-1] == folder / CONFIG and sum(path.name == CONFIG for path in moved) == 1
    from_pretrained(folder)


def test_a_write_that_fails_leaves_an_empty_folder(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.inference.export.add_seconds", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        called(export.main, "--checkpoint", run, "--output", tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_kept(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert_user_error(called(export.main, "--checkpoint", run, "--output", tmp_path), "is there already")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
