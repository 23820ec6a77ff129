"""Layers in 8 and 4 bits under adapters: refused without bitsandbytes or a GPU; their arithmetic on the CPU.

``pip install bitsandbytes`` runs the second half, on bitsandbytes' kernels for the CPU.
"""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from pipelines.planning.memory import parameters_of
from support.adapters import LORA, adapted_config, disturbed
from support.tiny import make_batch
from vtok import quantised
from vtok.assembly.architectures import meta_framework
from vtok.assembly.build import build_framework
from vtok.config import ConfigError, LoraConfig
from vtok.lora import adapted_layers
from vtok.parts import part_of

installed = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")


@pytest.fixture
def as_if_gpu(monkeypatch):
    monkeypatch.setattr(quantised, "has_gpu", lambda: True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_they_are_refused_elsewhere(tiny_models):
    with pytest.raises(ConfigError, match="mllm.lora.bits 4 needs bitsandbytes and a GPU, and there is no "):
        build_framework(adapted_config(tiny_models, LoraConfig(bits=4)))
    with pytest.raises(ConfigError, match="lora.dora needs lora.bits 16"):
        LoraConfig(bits=8, dora=True)
    with pytest.raises(ConfigError, match="lora.bits must be 16, 8 or 4"):
        LoraConfig(bits=2)


def test_the_plan_needs_neither(tiny_models):
    """4 bits and a scale for every 64 weights, of the layers with adapters alone."""
    sizes = []
    for bits in (16, 8, 4):
        parameters = parameters_of(meta_framework(adapted_config(tiny_models, LoraConfig(bits=bits))))
        sizes.append(sum(p.size * (p.own_width or 2) for p in parameters if p.part == "language_model"))
    layers = 4 * (128 * (128 + 64 + 64 + 128) + 3 * 128 * 384)
    assert sizes[0] - sizes[1] == layers and sizes[1] - sizes[2] == layers * (0.5 - 1 / 16)


@installed
@pytest.mark.parametrize("bits, error", [(8, 0.05), (4, 1e-4)])
def test_gradients_are_those_of_the_rounded_weights(tiny_models, as_if_gpu, bits, error):
    """8 bits round the layers' inputs too."""
    torch.manual_seed(0)
    plain = disturbed(build_framework(adapted_config(tiny_models))).train()
    torch.manual_seed(0)
    ours = disturbed(build_framework(adapted_config(tiny_models, replace(LORA, bits=bits)))).train()
    for one, other in zip(adapted_layers(plain.mllm), adapted_layers(ours.mllm)):
        weight = other.base_layer.weight
        assert weight.dtype == (torch.int8 if bits == 8 else torch.uint8) and not weight.requires_grad
        one.base_layer.weight.data = rounded(weight)
    for framework in (plain, ours):
        framework(make_batch(framework))["loss"].backward()
    found, wanted = (
        torch.cat([p.grad.flatten() for name, p in framework.named_parameters() if part_of(name) == "lora"])
        for framework in (ours, plain)
    )
    assert (found - wanted).norm() < error * wanted.norm()


def rounded(weight):
    """What a quantised weight stands for, in fp32."""
    if weight.dtype == torch.int8:
        return weight.CB.float() * weight.SCB[:, None] / 127
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)
