"""Builds the framework with the weights that its configuration names."""

from collections.abc import Collection, Mapping

from torch import nn

from vtok.adapter_names import is_adapter
from vtok.assembly.architectures import assemble
from vtok.config import ModelConfig
from vtok.feature_extractor import extractor_parts, warn_if_random
from vtok.fp8 import require_fp8
from vtok.framework import VTokFramework
from vtok.mllm import generation_config, mllm_part
from vtok.motion_encoder import MeanMotionEncoder
from vtok.quantised import quantise_layers, quantising
from vtok.rows.text import TextEncoder
from vtok.video_decoder import decoder_kind, decoder_parts
from vtok.weights import Part
from vtok.weights.materialise import EMPTY, Place, Read, materialise, whole

LANGUAGE_MODEL = "language_model"


def build_framework(config: ModelConfig, place: Place | None = None, without: Collection[str] = ()) -> VTokFramework:
    """Builds the framework with pretrained parts and randomly initialised additions.

    Args:
        config: The settings.
        place: Where the parameters go, and in which dtype. Whole, in fp32, on the CPU if omitted.
        without: Frozen parts (see :attr:`VTokFramework.frozen_parts`) that get no weights, since they do not run: for
            example encoders whose outputs are stored.

    Raises:
        ConfigError: Some weights cannot be loaded, or the parts do not fit together.
    """
    return with_weights(assemble(config), place, without)


def with_weights(
    framework: VTokFramework,
    place: Place | None = None,
    without: Collection[str] = (),
    trained: Mapping[str, Read] = EMPTY,
) -> VTokFramework:
    """Gives a framework of :func:`vtok.assembly.architectures.assemble` its weights and tokenizers.

    Arguments and errors are those of :func:`build_framework` and :func:`vtok.weights.materialise.materialise`.
    """
    config = framework.config
    require_fp8(config.decoder.fp8)
    warn_if_random(config.tokeniser)
    framework.text = TextEncoder.from_pretrained(config)
    if settings := generation_config(config.mllm):
        framework.mllm.causal_lm.generation_config = settings
    parts = pretrained_parts(config)
    for name in without:
        drop_weights(framework.frozen_parts[name])
        parts.pop(name, None)
    place, transformer = place or whole(), getattr(framework.decoder, "transformer", None)
    bases = {"mllm.lora": (framework.mllm, config.mllm.lora), "decoder.lora": (transformer, config.decoder.lora)}
    if quantise_layers(bases):
        place = quantising(place)
    return materialise(framework, parts.values(), place, trained)


def drop_weights(module: nn.Module) -> None:
    """Drops all parameters and buffers of a module, adapters apart. Their names remain, with the value ``None``."""
    for name, part in module.named_modules():
        if is_adapter(name):
            continue
        part._parameters = dict.fromkeys(part._parameters)
        part._buffers = dict.fromkeys(part._buffers)
        # DeepSpeed prints modules, and a module's own extra_repr may read a parameter's shape.
        part.extra_repr = lambda: "without weights"  # type: ignore[method-assign]


def pretrained_parts(config: ModelConfig) -> dict[str, Part]:
    """Returns where the pretrained weights lie, by the names of :meth:`VTokFramework.parameter_counts`."""
    extractor = extractor_parts(config.tokeniser).items()
    parts = {
        LANGUAGE_MODEL: mllm_part(config.mllm),
        **{name: part.below("tokeniser.feature_extractor.") for name, part in extractor},
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
    """Returns the names of :attr:`VTokFramework.frozen_parts` for this configuration."""
    decoder = ("diffusion_transformer", "autoencoder", "text_encoder")
    return ("feature_extractor", *(decoder if config.generates else ()))


def frozen_weights(config: ModelConfig) -> dict[str, Part]:
    """Returns where the weights of the parts that never train lie, by name, with all experts of a decoder."""
    parts = pretrained_parts(config)
    parts.pop(LANGUAGE_MODEL)  # it may train
    experts = decoder_kind(config.decoder).experts(config.decoder) if config.generates else {}
    if experts:
        parts.pop("diffusion_transformer")
        parts |= {name: part.below("decoder.") for name, part in experts.items()}
    return parts


def drawn_weights(framework: VTokFramework) -> list[str]:
    """Returns the names of randomly initialised parameters between frames and answer.

    Without any, the framework can answer untrained. Excludes P (zero-initialised) and a ``MeanMotionEncoder``, whose
    tokens are the features' mean at start.
    """
    held = [prefix for part in pretrained_parts(framework.config).values() for prefix in part.keys]
    if isinstance(getattr(framework.tokeniser, "motion_encoder", None), MeanMotionEncoder):
        held.append("tokeniser.motion_encoder.")
    between = ("tokeniser.", "projection.projector.")
    names = [name for name, _ in framework.named_parameters() if name.startswith(between)]
    return [name for name in names if not name.startswith(tuple(held))]
