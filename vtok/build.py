"""Puts the framework together from the weights its configuration names."""

from vtok.architectures import assemble
from vtok.config import ModelConfig
from vtok.decoder import decoder_parts
from vtok.feature_extractor import extractor_parts
from vtok.framework import VTokFramework
from vtok.materialise import Place, materialise, whole
from vtok.mllm import generation_config, llava_part
from vtok.text import TextEncoder
from vtok.weights import Part, stored_tensors


def build_framework(config: ModelConfig, place: Place | None = None) -> VTokFramework:
    """The framework with pretrained parts and freshly drawn additions.

    Args:
        place: where the parameters go, and in which dtype; whole, in fp32, on the CPU if omitted.

    Raises:
        ConfigError: some weights cannot be loaded, or the parts do not fit one another.
    """
    framework = assemble(config, TextEncoder.from_pretrained(config))
    if settings := generation_config(config.mllm):
        framework.mllm.causal_lm.generation_config = settings
    stored = stored_tensors(framework, pretrained_parts(config))
    return materialise(framework, stored, place or whole())


def pretrained_parts(config: ModelConfig) -> list[Part]:
    """Where the framework's pretrained parameters are."""
    return [
        llava_part(config.mllm),
        *(part.below("tokeniser.feature_extractor.") for part in extractor_parts(config.tokeniser)),
        *(part.below("decoder.") for part in decoder_parts(config.decoder).values()),
    ]
