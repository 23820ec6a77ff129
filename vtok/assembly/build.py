"""Puts the framework together from the weights its configuration names."""

from collections.abc import Collection

from torch import nn

from vtok.assembly.architectures import assemble
from vtok.config import ModelConfig
from vtok.feature_extractor import extractor_parts, warn_if_random
from vtok.framework import VTokFramework
from vtok.mllm import generation_config, mllm_part
from vtok.motion_encoder import MeanMotionEncoder
from vtok.rows.text import TextEncoder
from vtok.video_decoder import decoder_kind, decoder_parts
from vtok.weights import Part
from vtok.weights.materialise import Place, materialise, whole


def build_framework(config: ModelConfig, place: Place | None = None, without: Collection[str] = ()) -> VTokFramework:
    """The framework with pretrained parts and freshly drawn additions.

    Args:
        place: where the parameters go, and in which dtype; whole, in fp32, on the CPU if omitted.
        without: frozen parts (see :attr:`VTokFramework.frozen_parts`) that get no weights: encoders, as all batches
            bring what they give, or whatever does not run.

    Raises:
        ConfigError: some weights cannot be loaded, or the parts do not fit one another.
    """
    return with_weights(assemble(config), place, without)


def with_weights(framework: VTokFramework, place: Place | None = None, without: Collection[str] = ()) -> VTokFramework:
    """Give the framework of :func:`vtok.assembly.architectures.assemble` its weights and tokenizers; arguments and
    errors as :func:`build_framework`.
    """
    config = framework.config
    warn_if_random(config.tokeniser)
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
        part.extra_repr = lambda: "without weights"  # the module's own may ask them for a shape; DeepSpeed prints it


def pretrained_parts(config: ModelConfig) -> dict[str, Part]:
    """Where the framework's pretrained parameters are, by the names of :meth:`VTokFramework.parameter_counts`."""
    extractor = extractor_parts(config.tokeniser)
    parts = {
        "language_model": mllm_part(config.mllm),
        **{"feature_extractor": part.below("tokeniser.feature_extractor.") for part in extractor},
    }
    if not config.generates:
        return parts
    decoder = decoder_parts(config.decoder)
    return parts | {
        "diffusion_transformer": decoder["transformer"].below("decoder."),
        "autoencoder": decoder["vae"].below("decoder."),
        "text_encoder": decoder["text_encoder"].below("decoder."),
    }


def frozen_part_names(config: ModelConfig) -> tuple[str, ...]:
    """What :attr:`VTokFramework.frozen_parts` of such a framework are called."""
    decoder = ("diffusion_transformer", "autoencoder", "text_encoder")
    return ("feature_extractor", *(decoder if config.generates else ()))


def frozen_weights(config: ModelConfig) -> dict[str, Part]:
    """Where the frozen parts are, by name; of a decoder's experts all of them, of which a run has one at a time."""
    parts = pretrained_parts(config)
    parts.pop("language_model")  # trained
    experts = decoder_kind(config.decoder).experts(config.decoder) if config.generates else {}
    if experts:
        parts.pop("diffusion_transformer")
        parts |= {name: part.below("decoder.") for name, part in experts.items()}
    return parts


def drawn_weights(framework: VTokFramework) -> list[str]:
    """Names of the parameters between frames and answer that no checkpoint held: with none it can be asked untrained.

    P is not among them, which is zero at start, and neither is a motion encoder whose tokens are the features' mean
    then.
    """
    held = [prefix for part in pretrained_parts(framework.config).values() for prefix in part.keys]
    if isinstance(getattr(framework.tokeniser, "motion_encoder", None), MeanMotionEncoder):
        held.append("tokeniser.motion_encoder.")
    between = ("tokeniser.", "projection.projector.")
    names = [name for name, _ in framework.named_parameters() if name.startswith(between)]
    return [name for name in names if not name.startswith(tuple(held))]
