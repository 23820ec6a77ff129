"""Bytes of one rank, by part: what the engine always holds, and what a step needs temporarily."""

from typing import NamedTuple

from torch import nn

from pipelines.metering.meter import BACKWARD
from pipelines.metering.step import ENCODERS, Step
from pipelines.planning.sharding import Sharding
from vtok.framework import VTokFramework
from vtok.lora import adapted_layers
from vtok.parts import part_of
from vtok.quantised import BYTES
from vtok.weights.precision import kept_in_fp32

MASTER, MOMENTS, EMA = 4, 8, 4  # bytes per trained parameter, all fp32

UPDATE = "update"


class Parameter(NamedTuple):
    """One parameter tensor.

    Attributes:
        part: The part it belongs to. All trained ones are one part.
        size: Its elements.
        trained: Whether it is trained.
        own_width: Bytes of an element, if they are not those of the run's precision.
    """

    part: str
    size: int
    trained: bool
    own_width: float | None = None

    def width(self, sharding: Sharding) -> float:
        """Returns the bytes of an element in the forward pass."""
        return self.own_width or sharding.parameter_bytes


class Share(NamedTuple):
    """Bytes of one kind on one rank; on the GPU unless on the host."""

    name: str
    bytes: int
    on_host: bool = False


def parameters_of(framework: VTokFramework) -> list[Parameter]:
    """Lists the framework's parameter tensors. All trained ones are one part; frozen ones have the name of theirs."""
    listed = [Parameter("trained", p.numel(), True) for p in framework.parameters() if p.requires_grad]
    never = [
        (part, p) for part, module in framework.frozen_parts.items() for p in module.parameters() if not p.requires_grad
    ]
    others = {p for p in framework.parameters() if not p.requires_grad} - {p for _, p in never}
    left_out = [(part_of(name) or name, p) for name, p in framework.named_parameters() if p in others]
    width = widths(framework)
    return listed + [Parameter(part, p.numel(), False, width.get(p)) for part, p in left_out + never]


def widths(framework: VTokFramework) -> dict[nn.Parameter, float]:
    """Returns the bytes per element of the weights that stay fp32 or that the settings quantise."""
    bases = ((framework.mllm, framework.config.mllm.lora), (framework.decoder, framework.config.decoder.lora))
    quantised = {
        layer.base_layer.weight: BYTES[lora.bits]
        for module, lora in bases
        if module is not None and lora is not None and lora.bits in BYTES
        for layer in adapted_layers(module)
    }
    codes = {p: float(p.itemsize) for p in framework.parameters() if not p.is_floating_point()}
    return dict.fromkeys(kept_in_fp32(framework), float(MASTER)) | quantised | codes


def trained_shard(parameters: list[Parameter], ranks: int) -> int:
    """Returns the number of trained elements that a rank updates."""
    return sum(-(-p.size // ranks) for p in parameters if p.trained)


def is_persistent(parameter: Parameter, sharding: Sharding) -> bool:
    """Whether ZeRO-3 keeps it whole on every rank, in addition to its shard."""
    return sharding.stage == 3 and parameter.size <= sharding.persistence_threshold


def kept_memory(parameters: list[Parameter], ranks: int, sharding: Sharding, ema: bool = True) -> list[Share]:
    """Returns the memory that a rank holds from the first step to the last. Even fp32 runs have master weights.

    Args:
        parameters: The framework's.
        ranks: Their number.
        sharding: How ZeRO shards.
        ema: Whether the run keeps an average of the trained weights.
    """
    shard = trained_shard(parameters, ranks)
    trained, weight = sum(p.size for p in parameters if p.trained), sharding.parameter_bytes
    stage3, on_host = sharding.stage == 3, sharding.offload_optimizer
    # The host holds accumulated gradients, and an fp32 copy of them for the update.
    gradient_bytes = sharding.gradient_bytes + (MASTER if on_host and stage3 else 0)
    shares = [
        Share("trained weights", weight * (shard if stage3 else trained), sharding.offload_parameters),
        Share("gradients", gradient_bytes * shard, on_host),
        Share("master weights", MASTER * shard, on_host),
        Share("moments", MOMENTS * shard, on_host),
        Share("EMA", EMA * shard * ema, on_host),
    ]  # fmt: skip
    for part in dict.fromkeys(p.part for p in parameters if not p.trained):
        own = [p for p in parameters if p.part == part]
        held = sum(p.width(sharding) * (-(-p.size // ranks) if stage3 else p.size) for p in own)
        shares.append(Share(f"frozen {part}", round(held), sharding.offload_parameters))
    if stage3 and (ranks > 1 or sharding.offload_parameters):  # a single rank's shard is the parameter itself
        persistent = bytes_of([p for p in parameters if is_persistent(p, sharding)], sharding)
        shares.append(Share("persistent parameters", persistent))
    if sharding.secondary_partition > 1:
        shares.append(Share("secondary partition", bytes_of(parameters, sharding) // sharding.secondary_partition))
    shares.append(Share("reduce bucket", sharding.reduce_bytes * sharding.reduce_bucket))
    return [share for share in shares if share.bytes]


def bytes_of(parameters: list[Parameter], sharding: Sharding) -> int:
    """Returns the bytes of whole parameters in the forward pass."""
    return round(sum(p.width(sharding) * p.size for p in parameters))


def gathered_memory(parameters: list[Parameter], ranks: int, sharding: Sharding, part: str = "") -> int:
    """Returns the peak of gathered parameters: the live limit, but at least the largest tensor.

    DeepSpeed counts the limit in elements. Those that stay fp32 count like the others here: they are few.

    Args:
        parameters: The framework's.
        ranks: Their number.
        sharding: How ZeRO shards.
        part: The part that runs. If its weights are narrower than the run's, such as fp8, so are the gathered ones.
    """
    sharded = [p.size for p in parameters if not is_persistent(p, sharding)]
    alone = ranks == 1 and not sharding.offload_parameters  # its shard is the parameter itself
    if sharding.stage < 3 or alone or not sharded:
        return 0
    limit = max(sharding.max_live + sharding.prefetch, max(sharded))
    own = [p for p in parameters if p.part == part]
    width = bytes_of(own, sharding) / sum(p.size for p in own) if own else sharding.parameter_bytes
    return round(min(width, sharding.parameter_bytes) * min(limit, sum(sharded)))


def phase_memory(parameters: list[Parameter], step: Step, ranks: int, sharding: Sharding) -> dict[str, int]:
    """Returns the peak of temporary GPU memory in each phase of a step: activations, gathered weights, gradients.

    The backward passes of the language model and the heads reduce gradients. This copies the bucket once, or the
    largest gradient if that is larger. The update casts a sub-group's gradients to fp32 and takes the root of its
    moments.
    """
    trained = [p.size for p in parameters if p.trained]
    reducing = sharding.reduce_bytes * min(max(sharding.reduce_bucket, max(trained)), sum(trained))
    phases = {
        name: usage.peak
        + gathered_memory(parameters, ranks, sharding, name.removesuffix(BACKWARD))
        + reducing * (name in ("heads" + BACKWARD, "language_model" + BACKWARD))
        for name, usage in step.usage.items()
    }
    group = min(sharding.sub_group, sum(trained) // ranks)
    updating = group * (sharding.gradient_bytes + 2 * MASTER)
    return phases | {UPDATE: 0 if sharding.offload_optimizer else updating}


def backward_parts(parameters: list[Parameter]) -> list[Parameter]:
    """Returns the parameters that a backward pass reads too: all but those of encoders and frozen embeddings."""
    return [p for p in parameters if p.part not in (*ENCODERS, "embeddings")]
