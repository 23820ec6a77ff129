"""An engine that is released leaves its memory, so that a process can go on to the next stage."""

import gc
import os
from pathlib import Path

import pytest
import torch

from pipelines.config import TrainConfig
from pipelines.engine import distributed, internals
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.setup import build_engine, deepspeed_config
from support.launch import REPO, checked
from support.runs import make_shards, started
from support.tiny import make_batch, model_config
from vtok.assembly.build import build_framework


def held() -> int:
    """Bytes of all tensors that Python knows."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("ds_config, copies", [("zero2.json", 1.2), ("zero3.json", 0.5)])
def test_a_released_engine_leaves_its_memory(tiny_models, ds_config, copies):
    """Of five copies of what trains, none is left with ZeRO-3, and one with ZeRO-2. The batch stays."""
    linear = torch.nn.functional.linear

    def one_step() -> tuple[int, int]:
        train = TrainConfig(max_steps=1, global_batch_size=4, micro_batch_size=4)
        framework = build_framework(model_config(tiny_models))
        batch = make_batch(framework)
        path = REPO / "deepspeed_configs" / ds_config
        engine = build_engine(framework, deepspeed_config(path, train, plan_batch(4, 4, 1)), train)
        engine.backward(engine(batch)["loss"])
        engine.step()
        size = sum(p.numel() for p in framework.parameters() if p.requires_grad)
        internals.release(engine)
        return size, held()

    before = held()
    try:
        with distributed.connected():
            size, after = one_step()
            assert 4 * size > 1e6 and after - before < copies * 4 * size
    finally:
        torch.nn.functional.linear = linear


@pytest.mark.slow
def test_a_run_leaves_its_memory(tmp_path):
    """Of a second run in the same process nothing stays, not even buffers that were never written: forks need them."""
    shards = make_shards(tmp_path)
    sizes = []
    for number in range(3):
        checked(started(("--train.max_steps", 1, "--validation.every", 0), shards, tmp_path / str(number)))
        sizes.append(virtual_bytes())
    assert sizes[2] - sizes[1] < 1e9  # DeepSpeed's bucket alone has 2e9


def virtual_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")
