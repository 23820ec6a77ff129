"""Bytes that one rank receives from others in one optimiser step."""

from typing import Any

from data_tools.buckets import Bucket
from pipelines.engine.batch_plan import BatchPlan
from pipelines.metering.workload import Workload
from pipelines.planning.memory import Parameter, backward_parts, bytes_of, is_persistent
from pipelines.planning.sharding import Sharding
from vtok.framework import VTokFramework


def traffic(parameters: list[Parameter], ranks: int, accumulation: int, sharding: Sharding) -> dict[str, int]:
    """Computes the bytes that a rank receives in an optimiser step, by purpose. It sends as many.

    ZeRO-3 gathers every sharded parameter in each forward and again in each backward, there from the secondary
    partition if there is one. ZeRO-2 gathers the updated weights once per step. Gradients are reduce-scattered after
    each micro-step.
    """
    others = (ranks - 1) / ranks
    trained = [p for p in parameters if p.trained]
    reduced = {"reduce-scatter gradients": sharding.reduce_bytes * count(trained) * others * accumulation}
    if sharding.stage < 3:
        return whole(reduced | {"all-gather updated weights": sharding.parameter_bytes * count(trained) * others})
    second = sharding.secondary_partition
    again = (second - 1) / second if second > 1 else others
    moved = {}
    for kind, wanted in (("trained", True), ("frozen", False)):
        sharded = [p for p in parameters if p.trained == wanted and not is_persistent(p, sharding)]
        moved[f"all-gather {kind}, forward"] = bytes_of(sharded, sharding) * accumulation * others
        moved[f"all-gather {kind}, backward"] = bytes_of(backward_parts(sharded), sharding) * accumulation * again
    return whole(moved | reduced)


def exchanged(framework: VTokFramework, load: Workload, batch: BatchPlan, width: int) -> dict[str, int]:
    """Computes the bytes that a rank receives in an optimiser step from the ranks that share its samples, by purpose.

    Each block exchanges queries, keys, values and results of its latent tokens. It does so in the forward, in the
    backward, and once more if checkpointing repeats the forward. Text rows are few and do not count.

    Args:
        framework: The run's framework, on the meta device.
        load: A micro-batch.
        batch: How the batch is divided.
        width: Bytes of an activation's element.
    """
    decoder, ranks = framework.decoder, batch.sequence_parallel
    if ranks == 1 or decoder is None or load.video is None:
        return {}
    config: Any = decoder.transformer.config
    blocks = sum(len(getattr(decoder.transformer, stack)) for stack in decoder.stacks)
    size = Bucket(load.video.height, load.video.width, load.video.num_frames)
    own = size.tokens(decoder.token_side) / ranks * config["num_attention_heads"] * config["attention_head_dim"]
    passes = 3 if decoder.config.gradient_checkpointing else 2
    received = 4 * own * (ranks - 1) / ranks * width * blocks * passes
    every = framework.config.loss.dec_every
    return whole({"all-to-all of shared samples": received * load.size * batch.accumulation / every})


def count(parameters: list[Parameter]) -> int:
    return sum(p.size for p in parameters)


def whole(figures: dict[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in figures.items()}
