"""Bytes that one rank receives from others in one optimiser step."""

from typing import Any

from data_tools.buckets import Bucket
from pipelines.engine.batch_plan import BatchPlan
from pipelines.metering.workload import Workload
from pipelines.planning.memory import Parameter, backward_parts, bytes_of, is_persistent
from pipelines.planning.network import BACKWARD_PASS, FORWARD_PASS, NOTHING, Received, all_to_all, from_neighbour, ring
from pipelines.planning.sharding import Sharding
from vtok.framework import VTokFramework


def traffic(
    parameters: list[Parameter], ranks: int, accumulation: int, sharding: Sharding, per_node: int
) -> dict[str, Received]:
    """Computes the bytes that a rank receives in an optimiser step, by purpose. It sends as many.

    ZeRO-3 gathers every sharded parameter in each forward and again in each backward, there from the secondary
    partition if there is one. ZeRO-2 gathers the updated weights once per step. Gradients are reduce-scattered after
    each micro-step.

    Args:
        parameters: The framework's.
        ranks: Their number.
        accumulation: Micro-steps of a step.
        sharding: How ZeRO shards.
        per_node: Ranks of a node.
    """

    def moved(size: float, group: int, behind: str) -> Received:
        return ring(size * (group - 1) / group, ranks, group, per_node, behind)

    trained = [p for p in parameters if p.trained]
    gradients = sharding.reduce_bytes * count(trained) * accumulation
    reduced = {"reduce-scatter gradients": moved(gradients, ranks, BACKWARD_PASS)}
    if sharding.stage < 3:
        updated = sharding.parameter_bytes * count(trained)
        return reduced | {"all-gather updated weights": moved(updated, ranks, NOTHING)}
    again = sharding.secondary_partition if sharding.secondary_partition > 1 else ranks
    gathered = {}
    for kind, wanted in (("trained", True), ("frozen", False)):
        sharded = [p for p in parameters if p.trained == wanted and not is_persistent(p, sharding)]
        forward, backward = (bytes_of(some, sharding) * accumulation for some in (sharded, backward_parts(sharded)))
        gathered[f"all-gather {kind}, forward"] = moved(forward, ranks, FORWARD_PASS)
        gathered[f"all-gather {kind}, backward"] = moved(backward, again, BACKWARD_PASS)
    return gathered | reduced


def exchanged(
    framework: VTokFramework, load: Workload, batch: BatchPlan, width: int, per_node: int, encodes: bool
) -> dict[str, Received]:
    """Computes the bytes that a rank receives in an optimiser step from the ranks that share its samples, by purpose.

    Each block exchanges queries, keys, values and results of its latent tokens. It does so in the forward, in the
    backward, and once more if checkpointing repeats the forward. Text rows are few and do not count. Wan's autoencoder
    also exchanges frames, unless its latents are stored.

    Args:
        framework: The run's framework, on the meta device.
        load: A micro-batch.
        batch: How the batch is divided.
        width: Bytes of an activation's element.
        per_node: Ranks of a node.
        encodes: Whether the autoencoder runs.
    """
    decoder, ranks = framework.decoder, batch.sequence_parallel
    if ranks == 1 or decoder is None or load.video is None:
        return {}
    config: Any = decoder.transformer.config
    blocks = sum(map(len, decoder.block_stacks()))
    size = Bucket(load.video.height, load.video.width, load.video.num_frames)
    own = size.tokens(decoder.token_side) / ranks * config["num_attention_heads"] * config["attention_head_dim"]
    passes = 3 if decoder.config.gradient_checkpointing else 2
    received = 4 * own * (ranks - 1) / ranks * width * blocks * passes
    videos = load.size * batch.accumulation / framework.config.loss.dec_every
    moved = {"all-to-all of shared samples": all_to_all(received * videos, batch.ranks, ranks, per_node)}
    frames = decoder.received_in_encoding(ranks, load.video.num_frames, load.video.height, load.video.width)
    if frames and encodes:
        moved["frames of shared videos"] = from_neighbour(frames * videos, batch.ranks, ranks, per_node)
    return moved


def count(parameters: list[Parameter]) -> int:
    return sum(p.size for p in parameters)
