"""One rank of an engine that was loaded from files: takes steps, then says what it keeps, as a line of JSON.

deepspeed --num_gpus R residency_worker.py MODELS OVERRIDES, where OVERRIDES is a JSON object for zero_optimization.
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
from pipelines.engine.residency import bytes_of, master_partitions, residency
from pipelines.engine.setup import build_engine, deepspeed_config, precision
from pipelines.engine.weights import frozen_hashes, placement
from support.launch import REPO
from support.tiny import make_batch, model_config, part
from vtok.build import build_framework

models, overrides = sys.argv[-2:]
distributed.connect()
ranks = distributed.world_size()
train = TrainConfig(max_steps=1, global_batch_size=4, micro_batch_size=4 // ranks, precision="bf16", lr=1e-2)
plan = plan_batch(4, train.micro_batch_size, ranks)
config = deepspeed_config(REPO / "deepspeed_configs" / "zero3.json", train, plan)
config["zero_optimization"] |= {"reduce_bucket_size": 1000000} | json.loads(overrides)

torch.manual_seed(0)
reference = build_framework(model_config(models))  # whole, in fp32
torch.manual_seed(0)
framework = build_framework(model_config(models), placement(config, precision(train)))
hashes = distributed.every_rank(lambda: frozen_hashes(framework))
engine = build_engine(framework, config, train)
batch = make_batch(reference)
first = distributed.rank() * plan.micro_batch_size


def step() -> float:
    loss = engine(part(batch, list(range(first, first + plan.micro_batch_size))))["loss"]
    engine.backward(loss)
    engine.step()
    return float(distributed.mean_over_ranks(loss.detach().clone()))


named, expected = dict(engine.module.named_parameters()), dict(reference.named_parameters())
assert named.keys() == expected.keys()
with deepspeed.zero.GatheredParameters(list(named.values())):
    for name, parameter in named.items():
        assert torch.equal(parameter.data, expected[name].data.bfloat16()), name
for name, buffer in engine.module.named_buffers():
    assert buffer.dtype == dict(reference.named_buffers())[name].dtype, name
    assert torch.equal(buffer, dict(reference.named_buffers())[name]), name
trainable = {name: p for name, p in named.items() if p.requires_grad}
for name, parameter in trainable.items():
    assert torch.equal(safe_get_full_fp32_param(parameter), expected[name].data.bfloat16().float()), name

losses = [step() for _ in range(3)]
frozen = [p for p in named.values() if not p.requires_grad]
optimised = {
    id(p) for group in getattr(engine.optimizer, "fp16_groups", None) or engine.optimizer.bit16_groups for p in group
}
resident = residency(engine)
print("RESIDENT " + json.dumps({
    "losses": losses,
    "hashes": hashes,
    "bytes": {kind: bytes_of(resident, kind) for kind in {kind for kind, _ in resident}},
    "frozen_elements": sum(expected[name].numel() for name, p in named.items() if not p.requires_grad),
    "trainable_elements": sum(expected[name].numel() for name in trainable),
    "small_elements": sum(p.numel() for p in expected.values() if p.numel() <= 2000),
    "master_elements": sum(partition.numel() for partition in master_partitions(engine)),
    "frozen_gradients": sum(p.grad is not None for p in frozen),
    "frozen_optimised": sum(id(p) in optimised for p in frozen),
    "trainable_optimised": sum(id(p) in optimised for p in trainable.values()) - len(trainable),
}), flush=True)  # fmt: skip
deepspeed.comm.destroy_process_group()
