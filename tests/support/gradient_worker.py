"""One ZeRO-3 rank: gradients of the summed loss after one global batch, against the plain reference.

deepspeed --num_gpus R gradient_worker.py MODELS ACCUMULATION CHECKPOINTING
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import deepspeed
import torch
from deepspeed.utils import safe_get_full_grad

from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.setup import build_engine, deepspeed_config
from support.launch import REPO
from support.reference import global_loss
from support.tiny import make_batch, model_config, part
from vtok.build import build_framework

models, accumulation, checkpointing = sys.argv[-3:]
distributed.connect()
torch.manual_seed(0)
plain = build_framework(model_config(models))
recompute = model_config(models)
recompute.mllm.gradient_checkpointing = recompute.decoder.gradient_checkpointing = checkpointing == "True"
framework = build_framework(recompute)
plain.load_state_dict(framework.state_dict())
batch = make_batch(plain)
global_loss(plain.train(), batch).backward()
reference = {name: p.grad for name, p in plain.named_parameters() if p.requires_grad}

train = TrainConfig(
    max_steps=1, global_batch_size=4, micro_batch_size=4 // distributed.world_size() // int(accumulation)
)
plan = plan_batch(4, train.micro_batch_size, distributed.world_size())
assert plan.accumulation == int(accumulation)
config = deepspeed_config(REPO / "deepspeed_configs" / "zero3.json", train, plan)
config["zero_optimization"]["stage3_param_persistence_threshold"] = 0  # shard these tiny parameters too
engine = build_engine(framework, config, train)


def backward(batch):
    """One global batch, up to the update, which is left to the caller."""
    for step in range(plan.accumulation):
        first = (step * plan.ranks + distributed.rank()) * plan.micro_batch_size
        engine.backward(engine(part(batch, list(range(first, first + plan.micro_batch_size))))["loss"])
        if step < plan.accumulation - 1:
            engine.step()


backward(batch)
worst = 0.0
for name, parameter in engine.module.named_parameters():
    if not parameter.requires_grad:
        assert parameter.grad is None, name
        continue
    gradient = safe_get_full_grad(parameter)
    assert gradient is not None, f"{name} got no gradient"
    error, size = (gradient - reference[name]).norm().item(), reference[name].norm().item()
    assert error <= 1e-5 * size or (size == 0 and error <= 1e-8), (name, error, size)
    worst = max(worst, error / size if size else 0.0)
engine.step()

# A batch without any answer or caption has no loss. DeepSpeed would apply the last step's gradient again to a parameter
# that took no part.
backward(make_batch(plain, captions=[None] * 4))
for name, parameter in engine.module.named_parameters():
    if parameter.requires_grad:
        assert safe_get_full_grad(parameter).abs().max() == 0, f"{name} has a stale gradient"
engine.step()
print(f"rank {distributed.rank()}: {len(reference)} gradients agree, worst relative error {worst:.1e}", flush=True)
deepspeed.comm.destroy_process_group()
