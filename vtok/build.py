"""Puts the framework together from the weights its configuration names."""

from collections.abc import Collection

from torch import nn

from vtok.architectures import assemble
from vtok.config import ModelConfig
from vtok.decoder import decoder_kind, decoder_parts
from vtok.feature_extractor import extractor_parts, warn_if_random
from vtok.framework import VTokFramework
from vtok.materialise import Place, materialise, whole
from vtok.mllm import generation_config, llava_part
from vtok.text import TextEncoder
from vtok.weights import Part


def build_framework(config: ModelConfig, place: Place | None = None, without: Collection[str] = ()) -> VTokFramework:
    """The framework with pretrained parts and freshly drawn additions.

    Args:
        place: where the parameters go, and in which dtype; whole, in fp32, on the CPU if omitted.
        without: which of ``feature_extractor`` and ``autoencoder`` get no weights, as all batches bring what they give.

    Raises:
        ConfigError: some weights cannot be loaded, or the parts do not fit one another.
    """
    warn_if_random(config.tokeniser)
    framework = assemble(config)
    framework.text = TextEncoder.from_pretrained(config)
    if settings := generation_config(config.mllm):
        framework.mllm.causal_lm.generation_config = settings
    parts = pretrained_parts(config)
    for name in without:
        drop_weights(framework.frozen_parts[name])
        parts.pop(name, None)
    return materialise(framework, parts.values(), place or whole())


def drop_weights(module: nn.Module) -> None:
    """Leave only the module's configuration; each parameter and buffer is still there by name, as ``None``."""
    for part in module.modules():
        part._parameters = dict.fromkeys(part._parameters)
        part._buffers = dict.fromkeys(part._buffers)


def pretrained_parts(config: ModelConfig) -> dict[str, Part]:
    """Where the framework's pretrained parameters are, by the names of :meth:`VTokFramework.parameter_counts`."""
    decoder = decoder_parts(config.decoder)
    extractor = extractor_parts(config.tokeniser)
    return {
        "language_model": llava_part(config.mllm),
        **{"feature_extractor": part.below("tokeniser.feature_extractor.") for part in extractor},
        "diffusion_transformer": decoder["transformer"].below("decoder."),
        "autoencoder": decoder["vae"].below("decoder."),
        "text_encoder": decoder["text_encoder"].below("decoder."),
    }


def frozen_weights(config: ModelConfig) -> dict[str, Part]:
    """Where the frozen parts are, by name; of a decoder's experts all of them, of which a run has one at a time."""
    parts = pretrained_parts(config)
    parts.pop("language_model")  # trained
    if experts := decoder_kind(config.decoder).experts(config.decoder):
        parts.pop("diffusion_transformer")
        parts |= {name: part.below("decoder.") for name, part in experts.items()}
    return parts
