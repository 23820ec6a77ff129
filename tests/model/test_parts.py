"""Which parameters belong to which part, and what a table of parts lets train."""

import pytest
import torch

from pipelines.config import TrainConfig
from pipelines.engine.setup import learning_rates, parameter_groups
from support.tiny import make_batch, model_config, wan_config
from vtok.assembly.architectures import meta_framework
from vtok.assembly.build import build_framework
from vtok.config import ConfigError
from vtok.parts import part_of, train_only

TABLE = {"language_model.layers.2-3": 1e-5, "g_phi": 1e-4, "visual_head": 1e-3}


def test_every_parameter_that_can_train_belongs_to_one_part(tiny_models):
    framework = build_framework(wan_config(tiny_models))
    trained = {name for name, p in framework.named_parameters() if p.requires_grad}
    assert framework.learnable == trained == {name for name, _ in framework.named_parameters() if part_of(name)}
    assert {part_of(name) for name in trained} == {
        "language_model", "embeddings", "lm_head", "projector", "positions", "g_phi", "visual_head", "decoder_adapter",
    }  # fmt: skip


def test_a_table_lets_only_its_entries_train(framework):
    train_only(framework, framework.learnable, TABLE)
    trained = {name for name, p in framework.named_parameters() if p.requires_grad}
    blocks = {name.split(".")[4] for name in trained if name.startswith("mllm.")}
    assert blocks == {"2", "3"} and {part_of(name) for name in trained} == {"language_model", "g_phi", "visual_head"}
    train_only(framework, framework.learnable, {"language_model": 1e-5, "language_model.layers.0": 1e-6})
    trained = {name for name, p in framework.named_parameters() if p.requires_grad}
    assert {part_of(name) for name in trained} == {"language_model"} and "mllm.causal_lm.model.norm.weight" in trained


def test_gradients_of_what_trains_do_not_change(framework):
    batch = make_batch(framework)
    framework(batch)["loss"].backward()
    whole = {name: p.grad for name, p in framework.named_parameters() if p.requires_grad}
    framework.zero_grad()
    train_only(framework, framework.learnable, TABLE | {"lm_head": 1e-5})
    framework(batch)["loss"].backward()
    for name, parameter in framework.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, whole[name], msg=name)


def test_a_frozen_head_passes_the_gradient_on(framework):
    """And makes none of its own, which would be its largest."""
    framework.mllm.lm_head.requires_grad_(False)
    states = torch.randn(3, framework.mllm.dim, requires_grad=True)
    framework.mllm.lm_head(states, torch.tensor([1, 2, 3])).sum().backward()
    logits = states.detach().requires_grad_()
    torch.nn.functional.cross_entropy(
        framework.mllm.lm_head(logits), torch.tensor([1, 2, 3]), reduction="sum"
    ).backward()  # fmt: skip
    torch.testing.assert_close(states.grad, logits.grad)
    assert framework.mllm.lm_head.weight.grad is None


def test_each_entry_has_its_rate_and_the_one_schedule(framework):
    train = TrainConfig(max_steps=10, warmup_steps=4, weight_decay=0.1, parts=TABLE)
    train_only(framework, framework.learnable, TABLE)
    groups = parameter_groups(framework, train)
    assert {group["entry"]: group["lr"] for group in groups} == TABLE
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in framework.parameters() if p.requires_grad)
    assert all((group["weight_decay"] > 0) == (group["params"][0].ndim >= 2) for group in groups)
    assert learning_rates(1, train, 10) == {entry: rate / 4 for entry, rate in TABLE.items()}
    assert learning_rates(1, TrainConfig(max_steps=10, lr=0.5), 10) == {"": 0.5}


@pytest.mark.parametrize(
    "table, said",
    [
        ({}, "train.parts is empty"),
        ({"gphi": 1e-4}, "there is no part gphi: choose of language_model, "),
        ({"g_phi": 0}, "train.parts.g_phi must be positive"),
        ({"language_model.layers.3-1": 1e-4}, "write the lower number first"),
        ({"language_model.layers.1-3": 1e-4, "language_model.layers.3": 1e-5}, "name the same blocks"),
    ],
)
def test_slips_in_a_table_are_named(table, said):
    with pytest.raises(ConfigError, match=said):
        TrainConfig(max_steps=1, parts=table)


def test_what_this_model_cannot_train_is_named(tiny_models):
    framework = meta_framework(model_config(tiny_models))
    for entry in ("decoder_adapter", "lora", "language_model.layers.4-9"):
        with pytest.raises(ConfigError, match=f"this model has no {entry} that could train"):
            train_only(framework, framework.learnable, {"g_phi": 1e-4, entry: 1e-4})
