"""Adapters: peft's own layers within the framework, its files, and what is left when they are merged."""

import warnings
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlavaNextForConditionalGeneration

from support.adapters import DORA, LORA, adapted_config, disturbed, with_peft
from support.tiny import make_batch, model_config, qwen_config, wan_config
from vtok.adapter_names import is_adapter, plain_name
from vtok.assembly.adapters import merged
from vtok.assembly.architectures import meta_framework
from vtok.assembly.build import build_framework
from vtok.assembly.pretrained import from_pretrained, save_pretrained
from vtok.config import ConfigError, DecoderConfig, LoraConfig
from vtok.parts import part_of

IDS = torch.tensor([[3, 14, 15, 92, 65, 35]])


def losses_of(framework):
    torch.manual_seed(0)
    with torch.no_grad():
        return framework.eval()(make_batch(framework))


@pytest.fixture(scope="module", params=[LORA, DORA], ids=["lora", "dora"])
def adapted(request, tiny_models):
    return disturbed(build_framework(adapted_config(tiny_models, request.param)))


@pytest.mark.parametrize("lora", [LORA, DORA], ids=["lora", "dora"])
def test_gradients_equal_those_of_a_plain_peft_model(tiny_models, lora):
    torch.manual_seed(0)
    ours = disturbed(build_framework(adapted_config(tiny_models, lora))).train()
    theirs = with_peft(tiny_models, lora).train()
    others = {name: p for name, p in ours.state_dict().items() if not name.startswith("mllm.")}
    theirs.load_state_dict(others, strict=False)
    for framework in (ours, theirs):
        framework(make_batch(framework))["loss"].backward()
    wanted = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    found = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    assert found.keys() == wanted.keys() and sum(map(is_adapter, found)) == 4 * 7 * (3 if lora.dora else 2)
    for name, parameter in found.items():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, msg=name)
    frozen = {name: p for name, p in ours.named_parameters() if part_of(name) in ("language_model", "embeddings")}
    assert all(p.grad is None for p in frozen.values())


@pytest.mark.parametrize("lora", [LORA, DORA], ids=["lora", "dora"])
def test_new_adapters_change_nothing(tiny_models, lora):
    torch.manual_seed(0)
    plain = build_framework(model_config(tiny_models))
    ours = build_framework(adapted_config(tiny_models, lora, decoder=replace(lora, targets=["to_q", "to_out.0"])))
    weights = {plain_name(name): p for name, p in ours.state_dict().items()}
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    for name, loss in losses_of(plain).items():
        torch.testing.assert_close(losses_of(ours)[name], loss, msg=name)


def test_the_files_are_pefts(adapted, tmp_path):
    """``PeftModel`` and transformers open them over the published model, whose tower gets no adapter."""
    save_pretrained(adapted, tmp_path / "export")
    published = adapted.config.mllm.weights
    language = adapted.mllm.causal_lm.eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # peft warns of keys that it does not find
        opened = PeftModel.from_pretrained(
            LlavaNextForConditionalGeneration.from_pretrained(published), tmp_path / "export"
        ).eval()
        expected = language(input_ids=IDS, use_cache=False).logits
        torch.testing.assert_close(opened(input_ids=IDS).logits, expected)
        layers = [name for name, _ in opened.named_parameters() if is_adapter(name)]
        assert len(layers) == len(load_file(tmp_path / "export/adapter_model.safetensors"))
        assert not any("vision" in name for name in layers)
        if not adapted.config.mllm.lora.dora:  # transformers 5.24 leaves out the magnitudes
            by_transformers = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "export").eval()
            torch.testing.assert_close(by_transformers(input_ids=IDS).logits, expected)
        plain = LlavaNextForConditionalGeneration.from_pretrained(published).eval()
        assert not torch.allclose(plain(input_ids=IDS).logits, expected, atol=1e-2)


def test_a_folder_of_adapters_is_the_same_framework(adapted, tmp_path):
    save_pretrained(adapted, tmp_path / "export")
    assert not (tmp_path / "export/model.safetensors").exists()
    again = dict(from_pretrained(tmp_path / "export").named_parameters())
    for name, parameter in adapted.named_parameters():
        assert torch.equal(again[name], parameter), name


def test_merged_they_are_a_plain_model(adapted, tiny_models, tmp_path):
    kind = adapted.config.mllm.lora
    alone = disturbed(build_framework(adapted_config(tiny_models, kind)))
    alone.load_state_dict(adapted.state_dict())
    before = losses_of(alone)
    save_pretrained(merged(alone), tmp_path / "export")
    assert not any(map(is_adapter, alone.state_dict())) and alone.config.mllm.lora is None
    for name, loss in losses_of(from_pretrained(tmp_path / "export")).items():
        torch.testing.assert_close(loss, before[name], rtol=1e-4, atol=1e-5, msg=name)
    with torch.no_grad():
        plain = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "export").eval()
        expected = adapted.mllm.causal_lm.eval()(input_ids=IDS, use_cache=False).logits
        torch.testing.assert_close(plain(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [model_config, wan_config])
@pytest.mark.parametrize("dora", [False, True])
def test_adapters_of_the_decoder(tiny_models, tmp_path, make, dora):
    config = make(tiny_models)
    config.decoder.lora = LoraConfig(rank=2, dora=dora)
    framework = disturbed(build_framework(config)).train()
    framework(make_batch(framework))["loss"].backward()
    trained = {name: p for name, p in framework.named_parameters() if part_of(name) == "decoder_lora"}
    assert trained and all(p.grad is not None and p.grad.any() for p in trained.values())
    assert all(p.grad is None for p in framework.decoder.vae.parameters())
    framework.zero_grad()
    framework(make_batch(framework), with_decoder=False)["loss"].backward()
    assert all(p.grad is not None and not p.grad.any() for p in trained.values())  # else ZeRO-3 takes the last one
    save_pretrained(framework, tmp_path / "export")
    again = dict(from_pretrained(tmp_path / "export").named_parameters())
    assert all(torch.equal(again[name], p) for name, p in trained.items())


def test_what_trains_by_default(tiny_models):
    framework = meta_framework(adapted_config(tiny_models))
    trained = {part_of(name) for name, p in framework.named_parameters() if p.requires_grad}
    assert trained == {"lora", "projector", "positions", "g_phi", "visual_head"}
    qwen = qwen_config(tiny_models)
    assert qwen.mllm.lora is None


def test_impossible_settings_are_named(tiny_models):
    with pytest.raises(ConfigError, match="mllm.lora.targets: the blocks have no linear layer q: choose of mlp"):
        meta_framework(adapted_config(tiny_models, LoraConfig(targets=["q"])))
    with pytest.raises(ConfigError, match="decoder.lora.targets: the blocks have no linear layer to_x"):
        meta_framework(adapted_config(tiny_models, None, LoraConfig(targets=["to_q", "to_x"])))
    with pytest.raises(ConfigError, match="decoder.lora.dropout must be 0"):
        DecoderConfig(lora=LoraConfig(dropout=0.1))
    with pytest.raises(ConfigError, match="needs a decoder with one transformer"):
        DecoderConfig(kind="wan", expert="high_noise", lora=LoraConfig())
