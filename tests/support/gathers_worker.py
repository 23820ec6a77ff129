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
from pipelines.engine import distributed, internals
from pipelines.engine.setup import build_engine
from support.engines import all_sharded, begin, own_part
from support.tiny import make_batch, model_config
from vtok.assembly.build import build_framework

models, train, plan = begin(2)
torch.manual_seed(0)
framework = build_framework(model_config(models))
batch = own_part(make_batch(framework), plan, 0)
ds_config = all_sharded("zero3.json", train, plan)
del ds_config["zero_optimization"]["stage3_param_persistence_threshold"]  # small parameters stay whole, as in a run
engine = build_engine(framework, ds_config, train)
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
