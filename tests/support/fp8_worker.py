"""One rank: an engine whose decoder has fp8 weights, each rank's slices rounded by itself, against one process.

deepspeed --num_gpus R fp8_worker.py MODELS DS_CONFIG ...
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import deepspeed
import torch
from deepspeed.utils import safe_get_full_grad
from torch import nn

from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.setup import build_engine
from pipelines.engine.weights import frozen_hashes, placement
from support.engines import all_sharded, assert_frozen_kept, own_part
from support.tiny import fp8_config, make_batch, model_config
from vtok.assembly.build import build_framework
from vtok.fp8 import Fp8Linear
from vtok.weights.materialise import whole

models, *ds_configs = [arg for arg in sys.argv[1:] if not arg.startswith("--")]
distributed.connect()
train = TrainConfig(max_steps=1, global_batch_size=2, micro_batch_size=1, precision="fp32")
plan = plan_batch(2, 1, distributed.world_size())


def built(place, config):
    torch.manual_seed(0)
    return build_framework(config, place).train()


def held(framework, kind):
    """Bytes that this rank keeps of the linear layers in the transformer's blocks."""
    weights = [m.weight for stack in framework.decoder.block_stacks() for m in stack.modules() if isinstance(m, kind)]
    return sum(weight.ds_tensor.nbytes for weight in weights)


alone = built(whole(), fp8_config(models))
values = {name: parameter.detach() for name, parameter in alone.named_parameters()}
batch = make_batch(alone, 2)
alone(batch)["loss"].backward()
gradients = {name: parameter.grad for name, parameter in alone.named_parameters() if parameter.requires_grad}

for ds_config in ds_configs:
    config = all_sharded(ds_config, train, plan)
    framework = built(placement(config, torch.float32), fp8_config(models))
    if ds_config == "zero3.json":
        full = built(placement(config, torch.float32), model_config(models))
        assert frozen_hashes(framework) == frozen_hashes(full)
        assert held(framework, Fp8Linear) * 4 == held(full, nn.Linear) > 0  # 4 bytes of fp32
    engine = build_engine(framework, config, train)
    engine.backward(engine(own_part(batch, plan, 0))["loss"])
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(safe_get_full_grad(parameter), gradients[name], atol=1e-6, rtol=1e-3)
    assert_frozen_kept(engine, values, ds_config)
    engine.step()
print("FP8 PARTS ROUNDED", flush=True)
deepspeed.comm.destroy_process_group()
