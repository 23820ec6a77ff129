"""An export goes to the hub and comes back from it: here a stand-in on loopback, asked over HTTP."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipelines import export, train, understand
from pipelines.cli.initial_model import model_of
from pipelines.engine.initial import stored_in, whole
from pipelines.inference.load import load_run
from support.commands import called
from support.hub import TOKEN, standing_in
from support.launch import assert_user_error, checked
from support.runs import make_shards
from vtok.adapter_names import plain_name
from vtok.assembly.pretrained import from_pretrained

NAME = "someone/shapes-more"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data"), clips=6)


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    """A step from the shipped model, whose parts have names that everyone has."""
    output = tmp_path_factory.mktemp("trained") / "run"
    checked(called(train.main, *start("shapes/vtok", shards, output)))
    return output


def start(place, shards, output):
    return (
        "--init_from", place, "--data.shards", shards, "--output", output, "--train.max_steps", 1, "--data.workers", 0,
        "--train.global_batch_size", 2, "--train.ema_decay", "null",
    )  # fmt: skip


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with standing_in(tmp_path / "hub", monkeypatch) as hub:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.mark.slow
def test_an_export_is_pushed_with_its_card_and_used_by_its_name(trained, shards, hub, tmp_path):
    folder = tmp_path / "export"
    pushed = checked(called(export.main, "--checkpoint", trained, "--output", folder, "--push", NAME))
    assert pushed.stdout.splitlines()[-1] == f"pushed to {hub.address}/{NAME}"
    there = hub.files[NAME]
    assert {path: len(body) for path, body in there.items()} == {
        path.name: path.stat().st_size for path in folder.iterdir()
    }
    assert {"README.md", "vtok_config.json", "vtok.safetensors", "model.safetensors", "config.json"} <= there.keys()
    header, card = there["README.md"].decode().split("---\n", 2)[1:]
    assert yaml.safe_load(header)["license"] == "apache-2.0"
    for told in ("6 clips", "| training, step 1 | loss_dec |", "| decoder | `shapes/hunyuan-video` | Apache-2.0 |",
                 "after step 1 (2 samples)", "global_batch_size: 2", f'from_pretrained("{NAME}")'):  # fmt: skip
        assert told in card, told
    assert str(shards) not in card and str(tmp_path) not in card

    # Understood, loaded and trained further by its name alone.
    clip = next((shards.parent / "clips").glob("*.mp4"))
    answer = called(understand.main, "--checkpoint", NAME, "--video", clip, "--question", "What is it?", "--json")
    assert json.loads(checked(answer).stdout)["answer"]
    theirs, ours = from_pretrained(NAME).state_dict(), load_run(trained)[1].state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.allclose(ours[name], theirs[name], rtol=2**-7) for name in ours)  # bf16
    assert model_of(NAME)["mllm"]["weights"] == NAME
    new = tmp_path / "new"
    checked(called(train.main, *start(NAME, shards, new), "--train.lr", 1e-30))
    weights = load_file(next(new.glob("checkpoints/*/rank_00000.safetensors")))
    name = next(name for name in load_file(folder / "vtok.safetensors") if "motion_encoder" in name)
    stored = load_file(folder / "vtok.safetensors")[name].float()
    assert torch.equal(weights[f"weights/{name}"].view_as(stored), stored)


@pytest.mark.slow
def test_adapters_alone_are_pushed_and_found_by_their_name(shards, hub, tmp_path):
    """Over a published language model, which the settings name."""
    run, name = tmp_path / "run", "someone/adapters"
    options = ("--config", "pipelines/configs/demo.yaml", "--demo", "null", "--validation.every", 0)
    adapted = ("--init.weights", "null", "--model.mllm.lora.rank", 4, "--train.micro_batch_size", 2)
    checked(called(train.main, *options, *start("null", shards, run)[2:], *adapted))
    checked(called(export.main, "--checkpoint", run, "--output", tmp_path / "export", "--push", name))
    assert "adapter_model.safetensors" in hub.files[name] and "model.safetensors" not in hub.files[name]
    assert model_of(name)["mllm"]["weights"] == "shapes/llava-next"
    ours = load_run(run)[1].state_dict()
    trained = [key for key in ours if ".lora_B." in key]
    with stored_in(name, ema=False) as found:
        stored = {key: whole(found.find(plain_name(key))) for key in trained}
    theirs = from_pretrained(name).state_dict()
    assert trained
    for key in trained:
        assert torch.allclose(ours[key], stored[key], rtol=2**-7) and torch.equal(theirs[key], stored[key]), key


def test_what_cannot_be_pushed_or_fetched_is_one_line(trained, hub, tmp_path, monkeypatch):
    base = ("--checkpoint", trained, "--output", tmp_path / "export")
    assert_user_error(called(export.main, *base, "--push", "shapes-more"), "--push takes USER/NAME, not shapes-more")
    assert_user_error(called(export.main, *base, "--push", "a//b"), "--push a//b: Repo id")
    assert_user_error(called(export.main, *base, "--private"), "--private goes with --push")
    assert not (tmp_path / "export").exists()
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    refused = called(export.main, *base, "--push", NAME)
    assert_user_error(refused, f"--push {NAME}: the hub does not take it", f"`hf upload {NAME} {tmp_path / 'export'}`")
    missing = called(understand.main, "--checkpoint", "someone/else", "--video", "x.mp4", "--question", "What?")
    assert_user_error(missing, "there is no folder someone/else, and the hub does not give it")
    other = called(train.main, *start("someone/else", tmp_path, tmp_path / "out"))
    assert_user_error(other, "init.weights: no trained VTok in 'someone/else'")


def test_weights_in_a_folder_of_this_machine_are_not_pushed(trained, hub, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    config = yaml.safe_load((trained / "config.yaml").read_text())
    config["model"]["decoder"]["weights"] = str(tmp_path)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    refused = called(export.main, "--checkpoint", run, "--output", tmp_path / "export", "--push", NAME)
    assert_user_error(refused, f"the decoder lies in {tmp_path}, where others do not find it")
    assert not hub.asked
