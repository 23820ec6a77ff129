"""One rank of engines that are loaded from files: each takes steps, then says what it keeps, as a line of JSON.

deepspeed --num_gpus R residency_worker.py MODELS SETTINGS, where SETTINGS is a JSON object: name of a case -> what it
changes in zero_optimization.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import deepspeed
import torch
from deepspeed.utils import safe_get_full_fp32_param

from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.internals import masters
from pipelines.engine.setup import build_engine, deepspeed_config, precision
from pipelines.engine.weights import frozen_hashes, placement
from support.launch import REPO
from support.residency import bytes_of, residency
from support.tiny import make_batch, model_config, part
from vtok.assembly.build import build_framework

models, cases = sys.argv[-2:]
distributed.connect()
ranks = distributed.world_size()
train = TrainConfig(max_steps=1, global_batch_size=4, micro_batch_size=4 // ranks, precision="bf16", lr=1e-2)
plan = plan_batch(4, train.micro_batch_size, ranks)


def built(place=None):
    torch.manual_seed(0)
    return build_framework(model_config(models), place)


def check_values(engine, reference) -> None:
    """What was loaded is the files' values in bf16, the master copy that in fp32, buffers untouched."""
    named, expected = dict(engine.module.named_parameters()), dict(reference.named_parameters())
    assert named.keys() == expected.keys()
    with deepspeed.zero.GatheredParameters(list(named.values()), enabled=engine.zero_optimization_stage() == 3):
        for name, parameter in named.items():
            assert torch.equal(parameter.data, expected[name].data.bfloat16()), name
    for name, parameter in named.items():
        if parameter.requires_grad:
            master = safe_get_full_fp32_param(parameter)
            assert torch.equal(master, expected[name].data.bfloat16().float()), name
    for (name, buffer), wanted in zip(engine.module.named_buffers(), reference.buffers(), strict=True):
        assert buffer.dtype == wanted.dtype and torch.equal(buffer, wanted), name


def report(case: str, changes: dict) -> dict:
    config = deepspeed_config(REPO / "deepspeed_configs" / "zero3.json", train, plan)
    config["zero_optimization"] |= {"reduce_bucket_size": 1000000} | changes
    reference = built()  # whole, in fp32
    framework = built(placement(config, precision(train)))
    hashes = frozen_hashes(framework)
    engine = build_engine(framework, config, train)
    check_values(engine, reference)

    batch, losses = make_batch(reference), []
    first = distributed.rank() * plan.micro_batch_size
    for _ in range(2):
        loss = engine(part(batch, list(range(first, first + plan.micro_batch_size))))["loss"]
        engine.backward(loss)
        engine.step()
        losses.append(float(distributed.mean_over_ranks(loss.detach().clone())))

    parameters = list(engine.module.parameters())
    frozen = [p for p in parameters if not p.requires_grad]
    groups = getattr(engine.optimizer, "fp16_groups", None) or engine.optimizer.bit16_groups
    optimised = {id(p) for group in groups for p in group}
    resident = residency(engine)
    return {
        "case": case,
        "losses": losses,
        "hashes": hashes,
        "bytes": {kind: bytes_of(resident, kind) for kind, _ in resident},
        "frozen": sum(p.numel() for p in reference.parameters() if not p.requires_grad),
        "trainable": sum(p.numel() for p in reference.parameters() if p.requires_grad),
        "small": sum(p.numel() for p in reference.parameters() if p.numel() <= 2000),
        "master": sum(partition.numel() for partition in masters(engine)),
        "frozen_gradients": sum(p.grad is not None for p in frozen),
        "frozen_optimised": sum(id(p) in optimised for p in frozen),
        "trainable_left_out": sum(p.requires_grad and id(p) not in optimised for p in parameters),
        "shard_devices": sorted({p.ds_tensor.device.type for p in frozen if hasattr(p, "ds_tensor")}),
    }


for case, changes in json.loads(cases).items():
    print("REPORT " + json.dumps(report(case, changes)) + "\n", end="", flush=True)
deepspeed.comm.destroy_process_group()
