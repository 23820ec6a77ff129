"""One rank: a bf16 engine with Wan computes with its fp32 parts, like the whole framework in one process.

deepspeed --num_gpus R fp32_worker.py MODELS DS_CONFIG ...
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import deepspeed
import torch

from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.setup import build_engine
from pipelines.engine.weights import placement
from support.engines import all_sharded, assert_frozen_kept, own_part
from support.tiny import make_batch, wan_config
from vtok.assembly.build import build_framework
from vtok.weights.materialise import whole

models, *ds_configs = [arg for arg in sys.argv[1:] if not arg.startswith("--")]
distributed.connect()
train = TrainConfig(max_steps=1, global_batch_size=2, micro_batch_size=1, precision="bf16")
plan = plan_batch(2, 1, distributed.world_size())


def built(place):
    torch.manual_seed(0)
    return build_framework(wan_config(models), place).train()


alone = built(whole(torch.bfloat16))
values = {name: parameter.detach() for name, parameter in alone.named_parameters()}
batch = own_part(make_batch(alone, 2), plan, 0)
expected = alone(batch)
assert sum(value.dtype == torch.float32 for value in values.values()) > 100

for ds_config in ds_configs:
    config = all_sharded(ds_config, train, plan)
    engine = build_engine(built(placement(config, torch.bfloat16)), config, train)
    found = engine(batch)
    # ZeRO-3's own linear layer rounds to bf16 once more, before it adds the bias.
    rounding = 0 if "zero2" in ds_config else 2e-3
    for name in ("loss_dec", "loss_under", "loss_vis_lm"):
        torch.testing.assert_close(found[name], expected[name], atol=0, rtol=rounding)
    engine.backward(found["loss"])
    engine.step()
    assert_frozen_kept(engine, values, ds_config)
print("FP32 PARTS KEPT", flush=True)
deepspeed.comm.destroy_process_group()
