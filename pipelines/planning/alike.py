"""Calls that are alike, under the meter: the first one runs, the others are counted.

An autoencoder takes a clip window by window and tile by tile: 300 calls of one encoder at 720p, which would take
minutes on the meta device.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from pipelines.planning.meter import Meter


@contextmanager
def alike_calls_run_once(module: nn.Module, meter: Meter) -> Iterator[None]:
    """Calls of ``module`` under ``meter`` that get tensors of the same shapes as an earlier one are only counted.

    Lists among the named arguments may change in a call, as Wan's feature cache does; they change in the same way.
    """
    original, known = module.forward, {}

    def forward(*args, **named):
        leaves, structure = tree_flatten(tree_map(blueprint, (args, named)))
        key = (*leaves, structure)
        lists = {name: value for name, value in named.items() if isinstance(value, list)}
        if key not in known:
            with meter.recorded() as usage:
                out = original(*args, **named)
            known[key] = usage, tree_map(blueprint, out), tree_map(blueprint, lists)
            return out
        usage, out, changed = known[key]
        meter.repeat(usage)
        for name, value in lists.items():
            value[:] = tree_map(built, changed[name], is_leaf=is_blueprint)
        return tree_map(built, out, is_leaf=is_blueprint)

    module.forward = forward
    try:
        yield
    finally:
        del module.forward


class Blueprint(tuple):
    """Shape, dtype and device of a tensor."""


def is_blueprint(value: Any) -> bool:
    return isinstance(value, Blueprint)


def blueprint(value: Any) -> Any:
    return Blueprint((value.shape, value.dtype, value.device)) if isinstance(value, Tensor) else value


def built(value: Any) -> Any:
    if not is_blueprint(value):
        return value
    shape, dtype, device = value
    return torch.empty(shape, dtype=dtype, device=device)
