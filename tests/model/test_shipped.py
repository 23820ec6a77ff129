"""Shipped models are found by name, as hub ids are."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from support.tiny import model_config
from vtok.assembly.build import build_framework
from vtok.assembly.pretrained import CONFIG, from_pretrained, save_pretrained
from vtok.config import ConfigError
from vtok.weights import shipped


@pytest.fixture
def named(tiny_models, tmp_path, monkeypatch):
    """A configuration that names shipped models: the tiny ones."""
    folder = tmp_path / "shipped"
    shutil.copytree(tiny_models, folder)
    monkeypatch.setattr(shipped, "SHIPPED", folder)
    config = model_config(folder)
    return replace(
        config,
        tokeniser=replace(config.tokeniser, weights="shapes/clip"),
        mllm=replace(config.mllm, weights="shapes/llava"),
        decoder=replace(config.decoder, weights="shapes/hunyuan"),
    )


def test_a_framework_is_built_from_shipped_models(named, tiny_models):
    framework, expected = build_framework(named), build_framework(model_config(tiny_models))
    parts = ("mllm", "decoder", "tokeniser.feature_extractor")
    states = [
        {name: value for name, value in each.state_dict().items() if name.startswith(parts)}
        for each in (framework, expected)
    ]
    assert states[0].keys() == states[1].keys() and len(states[0]) > 100
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_is_saved_names_the_shipped_models_and_not_their_folder(named, tmp_path):
    framework = build_framework(named)
    save_pretrained(framework, tmp_path / "saved")
    stored = json.loads((tmp_path / "saved" / CONFIG).read_text())
    assert stored["tokeniser"]["weights"] == "shapes/clip" and stored["decoder"]["weights"] == "shapes/hunyuan"
    assert from_pretrained(tmp_path / "saved").config.decoder.weights == "shapes/hunyuan"


def test_a_folder_of_the_user_comes_first(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes/clip").mkdir(parents=True)
    assert shipped.folder_of("shapes/clip").resolve() == (tmp_path / "shapes/clip").resolve()


@pytest.mark.parametrize("weights", ["shapes/nothing", "openai/clip-vit-large-patch14-336", "clip"])
def test_other_names_are_hub_ids(named, weights):
    assert shipped.folder_of(weights) is None and shipped.folder_or_id(weights) == weights


def test_a_shipped_model_that_does_not_exist_is_one_clear_error(named):
    with pytest.raises(ConfigError, match="shapes/nothing"):
        build_framework(replace(named, tokeniser=replace(named.tokeniser, weights="shapes/nothing")))
