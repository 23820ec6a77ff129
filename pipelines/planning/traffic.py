"""Bytes that one rank receives from others in one optimiser step."""

from pipelines.planning.memory import Parameter, backward_parts, bytes_of, is_persistent
from pipelines.planning.sharding import Sharding


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


def count(parameters: list[Parameter]) -> int:
    return sum(p.size for p in parameters)


def whole(figures: dict[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in figures.items()}
