"""A run that trains adapters: EMA, resuming, exports (peft's format, or merged), a new run from either, its plan."""

import json
import shutil
from functools import partial

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlavaNextForConditionalGeneration

from pipelines import export, plan, train
from pipelines.inference.load import load_run
from support import runs
from support.commands import called
from support.launch import assert_user_error, checked
from support.runs import log_of, make_shards, without_rates
from vtok.adapter_names import is_adapter
from vtok.assembly.pretrained import from_pretrained
from vtok.parts import part_of

pytestmark = pytest.mark.slow  # it trains

LAST = "checkpoints/step_00000004"
LORA = ("--model.mllm.lora.rank", 2, "--model.mllm.lora.dropout", 0.1)
SETTINGS = (
    "--train.max_steps", 4, "--train.global_batch_size", 4, "--data.seconds", 1, "--validation.every", 0,
    "--checkpoint.every", 2, "--checkpoint.keep", 9, "--train.lr", 1e-2, "--train.ema_decay", 0.5,
)  # fmt: skip
IDS = torch.tensor([[3, 14, 15, 92, 65, 35]])


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data"))


started = partial(runs.started, SETTINGS)


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "run"
    checked(started(shards, output, *LORA))
    return output


def exported(run, folder, *more):
    checked(called(export.main, "--checkpoint", run, "--output", folder, "--dtype", "fp32", *more))
    return folder


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


def test_checkpoints_hold_the_adapters_alone(trained):
    stored = load_file(trained / LAST / "rank_00000.safetensors")
    parts = {part_of(key.split("/", 1)[1]) for key in stored if not key.startswith("random_state/")}
    assert parts == {"lora", "projector", "positions", "g_phi", "visual_head"}
    name = "mllm.causal_lm.model.layers.0.mlp.up_proj.lora_B.default.weight"
    assert stored[f"weights/{name}"].any() and not torch.equal(stored[f"weights/{name}"], stored[f"ema/{name}"])


def test_it_resumes_to_the_last_digit(trained, shards, tmp_path):
    """Also the adapters' dropout."""
    again = shutil.copytree(trained, tmp_path / "again")
    shutil.rmtree(again / LAST)
    checked(started(shards, again, *LORA, "--resume", "auto"))
    assert without_rates(log_of(again)) == without_rates(log_of(trained))
    other = started(shards, again, "--model.mllm.lora.rank", 3, "--resume", "auto", "--train.max_steps", 5)
    assert_user_error(other, "is of another model", "lora_A")


@pytest.mark.parametrize("ema", [(), ("--ema",)], ids=["weights", "average"])
def test_an_export_is_pefts_folder(trained, tmp_path, ema):
    folder = exported(trained, tmp_path / "adapters", *ema)
    config = json.loads((folder / "adapter_config.json").read_text())
    base = LlavaNextForConditionalGeneration.from_pretrained(config["base_model_name_or_path"])
    expected = logits(load_run(trained, ema=bool(ema))[1].mllm.causal_lm)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, folder)), expected)
    torch.testing.assert_close(logits(from_pretrained(folder).mllm.causal_lm), expected)
    assert not (folder / "model.safetensors").exists()


def test_merged_it_is_a_published_model(trained, shards, tmp_path):
    folder = exported(trained, tmp_path / "merged", "--merge")
    plain = LlavaNextForConditionalGeneration.from_pretrained(folder)
    expected = logits(load_run(trained)[1].mllm.causal_lm)
    torch.testing.assert_close(logits(plain), expected, rtol=1e-4, atol=1e-5)
    assert not any(map(is_adapter, plain.state_dict()))
    checked(called(train.main, "--init_from", folder, "--data.shards", shards, "--output", tmp_path / "new", *SETTINGS))


def test_a_run_goes_on_from_adapters(trained, shards, tmp_path):
    """From the run or its export: both have the adapters, over the same language model, which is not copied."""
    folder, still = exported(trained, tmp_path / "adapters"), ("--train.lr", 1e-30)
    before = dict(load_run(trained)[1].named_parameters())
    for place, new in ((trained, tmp_path / "one"), (folder, tmp_path / "other")):
        checked(called(train.main, "--init_from", place, "--data.shards", shards, "--output", new, *SETTINGS, *still))
        after = dict(load_run(new)[1].named_parameters())
        assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
        assert not (new / "kept").exists()


def test_adapters_over_a_language_model_of_the_runs_own_are_merged_only(trained, shards, tmp_path):
    merged, new = exported(trained, tmp_path / "merged", "--merge"), tmp_path / "new"
    checked(started(shards, new, *LORA, "--init_from", merged, "--train.max_steps", 1))
    refused = called(export.main, "--checkpoint", new, "--output", tmp_path / "adapters")
    assert_user_error(refused, "has its own language model beside the adapters", "--merge")
    exported(new, tmp_path / "whole", "--merge")
    refused = called(export.main, "--checkpoint", merged, "--output", tmp_path / "x", "--merge")
    assert refused.returncode == 2


def test_the_plan_knows_adapters(trained):
    def planned(*more):
        words = ("--config", trained / "config.yaml", "--gpus", 1, "--json", *more)
        return json.loads(checked(called(plan.main, *words)).stdout)

    without, lora = planned("--model.mllm.lora", "null"), planned()
    both = planned("--model.decoder.lora.rank", 2)
    kept = [figures["gpu_memory"]["kept"] for figures in (without, lora, both)]
    assert kept[1]["frozen language_model"] > 0.9 * kept[0]["trained weights"] * 0.5
    assert kept[1]["moments"] < 0.5 * kept[0]["moments"] and kept[1]["moments"] < kept[2]["moments"]
    trains = {part["part"]: part["trained"] for part in lora["parameters"]}
    assert 0 < trains["language_model"] < trains["g_phi"] * 10 and trains["diffusion_transformer"] == 0
    assert not any("decoder.lora" in note for note in lora["notes"])
    assert any(note.startswith("decoder.lora adds") for note in both["notes"])
