"""One rank: the collectives of an update under ZeRO-3, and whether its small parameters are gathered right, as JSON.

deepspeed --num_gpus R gathers_worker.py MODELS
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import deepspeed
import torch
from deepspeed.runtime.zero import Init

from pipelines.benchmarks.fsdp import Traffic
from pipelines.benchmarks.scaling import ZERO3
from pipelines.config import TrainConfig
from pipelines.engine import distributed, internals
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.setup import build_engine, deepspeed_config
from support.engines import own_part
from support.tiny import make_batch, model_config
from vtok.assembly.build import build_framework

(models,) = [arg for arg in sys.argv[1:] if not arg.startswith("--")]
distributed.connect()
train = TrainConfig(max_steps=1, global_batch_size=2, micro_batch_size=1)
plan = plan_batch(2, 1, distributed.world_size())
torch.manual_seed(0)
framework = build_framework(model_config(models))
batch = own_part(make_batch(framework), plan, 0)
engine = build_engine(framework, deepspeed_config(ZERO3, train, plan), train)
engine.backward(engine(batch)["loss"])
with Traffic() as traffic:
    engine.step()

whole = engine.optimizer.persistent_parameters


def gathered() -> list[torch.Tensor]:
    """Returns the values of the parameters that stay whole, gathered anew from their parts."""
    whole[0].partition(whole)
    whole[0].all_gather(whole)
    return [parameter.data.clone() for parameter in whole]


found = {"together": gathered()}
small, internals.SMALL = internals.SMALL, 50
found["some alone"] = gathered()
internals.SMALL = small
Init._allgather_params_coalesced = internals._gather_each
each = gathered()
internals.gather_small_together()
if distributed.rank() == 0:
    told = {
        "gathers": sum("gather" in name for name, _ in traffic.calls),
        "parameters": len(whole),
        "dtypes": len({parameter.dtype for parameter in whole}),
        "padded": sum(parameter.ds_numel % distributed.world_size() > 0 for parameter in whole),
        "equal": {way: all(map(torch.equal, values, each)) for way, values in found.items()},
    }
    print(json.dumps(told), flush=True)
deepspeed.comm.destroy_process_group()
