"""Frameworks with adapters whose second matrices are not zero, as after training."""

from dataclasses import replace

import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model

from support.tiny import model_config
from vtok.adapter_names import is_adapter
from vtok.assembly.build import build_framework
from vtok.config import LoraConfig, ModelConfig
from vtok.framework import VTokFramework
from vtok.lora import LANGUAGE_TARGETS

LORA = LoraConfig(rank=3, alpha=12.0)
DORA = LoraConfig(rank=3, alpha=12.0, dora=True)


def adapted_config(models, lora: LoraConfig | None = LORA, decoder: LoraConfig | None = None) -> ModelConfig:
    """The tiny models with adapters in the language model and in the decoder."""
    config = model_config(models)
    return replace(config, mllm=replace(config.mllm, lora=lora), decoder=replace(config.decoder, lora=decoder))


def disturbed(framework: VTokFramework) -> VTokFramework:
    """Draws the adapters anew, each from its own name, and moves the magnitudes. Returns the framework."""
    with torch.no_grad():
        for name, parameter in framework.named_parameters():
            if is_adapter(name):
                generator = torch.Generator().manual_seed(sum(name.encode()))
                drawn = 0.1 * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(parameter + drawn if "magnitude" in name else drawn)
    return framework


def with_peft(models, lora: LoraConfig) -> VTokFramework:
    """The tiny models, whose language model peft itself has given the adapters of ``disturbed``."""
    plain = build_framework(model_config(models))
    config = PeftConfig(
        r=lora.rank, lora_alpha=lora.alpha, use_dora=lora.dora, target_modules=lora.targets or LANGUAGE_TARGETS
    )
    get_peft_model(plain.mllm.causal_lm, config)
    return disturbed(plain)
