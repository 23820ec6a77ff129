"""What a resumed optimiser starts from, without an engine: its masters may lie on any device."""

from types import SimpleNamespace

import pytest
import torch

from pipelines.engine.internals import MOMENTS, start_moments


def engine_of(flats: list[torch.Tensor]):
    """As much of a ZeRO-3 engine as its optimiser's state needs."""
    optimiser = torch.optim.AdamW([torch.nn.Parameter(flat) for flat in flats], lr=0.1, fused=True)
    masters = optimiser.param_groups[0]["params"]
    wrapped = SimpleNamespace(optimizer=optimiser, fp32_partitioned_groups_flat=masters)
    return SimpleNamespace(optimizer=wrapped, zero_optimization_stage=lambda: 3)


def test_a_resumed_optimiser_counts_where_its_masters_lie():
    """On the meta device, which like a GPU is not the host."""
    engine = engine_of([torch.ones(4, device="meta"), torch.ones(2, device="meta")])
    start_moments(engine, updates=1)
    state = engine.optimizer.optimizer.state
    assert len(state) == 2
    for own in state.values():
        assert own.keys() == {"step", *MOMENTS}
        assert [tensor.device.type for tensor in own.values()] == ["meta"] * 3
    assert len({id(own["step"]) for own in state.values()}) == 2  # torch advances each of them by one


def test_a_resumed_optimiser_corrects_its_first_update_for_the_updates_before():
    engine = engine_of([torch.zeros(1)])
    start_moments(engine, updates=9)
    (flat,) = engine.optimizer.fp32_partitioned_groups_flat
    flat.grad = torch.ones(1)
    engine.optimizer.optimizer.step()
    assert engine.optimizer.optimizer.state[flat]["step"].item() == 10
    first, second = (1 - 0.9) / (1 - 0.9**10), (1 - 0.999) / (1 - 0.999**10)
    assert flat.item() == pytest.approx(-0.1 * first / second**0.5, rel=1e-4)
