"""What all studies and the training of the small models share: stages, fitting, profiles."""

import multiprocessing
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from pipelines.shapes_study.config import Fitting, load_profile, merged
from pipelines.shapes_study.fitting import fit
from pipelines.shapes_study.matched import matched_hidden_dim
from pipelines.shapes_study.stages import gate, slug, stage
from vtok.config import ConfigError
from vtok.motion_encoder import MotionEncoder


def test_a_name_of_a_folder_has_no_space_or_comma():
    assert slug("1 cell, g_phi as of 4 x 4-0 real") == "1-cell-g_phi-as-of-4-x-4-0-real"


def test_a_gate_asks_the_whole_interval():
    assert gate("x", 95, 100, 0.9)["gate"]["passed"] is False  # 88.8 to 97.8 %
    assert gate("x", 570, 600, 0.9)["gate"]["passed"] is True


def test_a_stage_is_not_done_twice_nor_with_other_settings(tmp_path):
    calls = []

    def make(folder):
        calls.append(folder)
        return {"x": 1.0}

    first = stage(tmp_path / "one", {"a": 1}, [], make)
    assert stage(tmp_path / "one", {"a": 1}, [], make) == first and len(calls) == 1
    assert first.figures["x"] == 1.0
    with pytest.raises(ConfigError, match="was made with other settings"):
        stage(tmp_path / "one", {"a": 2}, [], make)
    with pytest.raises(ConfigError, match="was made with other settings"):  # the stages it depends on count too
        stage(tmp_path / "one", {"a": 1}, [replace(first, key="x")], make)
    with pytest.raises(ZeroDivisionError):
        stage(tmp_path / "two", {}, [], lambda folder: 1 / 0)
    assert not (tmp_path / "two" / "done.json").exists() and stage(tmp_path / "two", {}, [], make).figures["x"] == 1.0


def test_processes_at_once_make_a_stage_once(tmp_path):
    """The second process waits for the first and uses its result."""
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=stage, args=(tmp_path / "one", 1, [], slowly)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert (tmp_path / "one" / "makers.txt").read_text() == "one\n"
    assert stage(tmp_path / "one", 1, [], slowly).figures["x"] == 1.0


def slowly(folder):
    with (folder / "makers.txt").open("a") as file:
        file.write("one\n")
    time.sleep(0.5)
    return {"x": 1.0}


def test_fitting_goes_on_where_it_was_stopped_to_the_last_digit(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.shapes_study.fitting.SAVE_SECONDS", -1)
    fitting = Fitting(steps=12, lr=1e-2, warmup=3)

    def train(folder, stop=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
        folder.mkdir(exist_ok=True)

        def loss(step):
            if step == stop:
                raise KeyboardInterrupt
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            return (model(x) - x.sum(1, keepdim=True)).square().mean()

        return fit(model, loss, fitting, folder), model

    losses, model = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop=7)
    again, resumed = train(tmp_path / "cut")
    assert again == losses and len(losses) == 12 and losses[-1] < losses[0]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters()))


@pytest.mark.parametrize("width", [32, 96, 192])
@pytest.mark.parametrize("grid", [1, 2])
def test_g_phi_is_matched_in_parameters(width, grid):
    def size(encoder):
        return sum(p.numel() for p in encoder.parameters())

    matched = MotionEncoder(grid, width, width, matched_hidden_dim(width, grid, like=4))
    assert size(matched) == pytest.approx(size(MotionEncoder(4, width, width)), rel=0.01)


def test_profiles_lie_over_what_is_common(tmp_path):
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": None}) == {"a": {"b": 4, "c": 2}}
    path = tmp_path / "study.yaml"
    path.write_text("arms: {vtok: {}}\nprofiles: {one: {clips: 3}}")
    with pytest.raises(ConfigError, match="clips"):
        load_profile(Fitting, path, "one")
