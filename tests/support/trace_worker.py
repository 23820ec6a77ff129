"""One rank: all-gathers of ZeRO-3 in each optimiser step, without and with steps that have no L_dec.

deepspeed --num_gpus R trace_worker.py MODELS
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import deepspeed
import torch
from deepspeed.runtime.zero import partition_parameters

from pipelines.engine import distributed, stepping
from pipelines.engine.loading.loader import Loaded
from pipelines.engine.setup import build_engine
from support.engines import all_sharded, begin, own_part
from support.tiny import make_batch, model_config
from vtok.assembly.build import build_framework
from vtok.config import LossConfig

models, train, plan = begin(4)

calls = []
gather = partition_parameters._dist_allgather_fn
partition_parameters._dist_allgather_fn = lambda *args, **options: calls.append(1) or gather(*args, **options)


def gathers(dec_every: int, steps: int) -> dict[str, list]:
    """All-gathers and loss of each step, of two micro-steps."""
    torch.manual_seed(0)
    framework = build_framework(model_config(models))
    ds_config = all_sharded("zero3.json", train, plan)
    # As with models that do not fit: a parameter is released after each use, and few are gathered ahead at once.
    ds_config["zero_optimization"] |= {"stage3_prefetch_bucket_size": 50_000, "stage3_max_reuse_distance": 0}
    engine = build_engine(framework, ds_config, train)
    batch, loss = make_batch(framework), LossConfig(dec_every=dec_every)
    counts, losses = [], []
    for step in range(1, steps + 1):
        calls.clear()
        micro = (Loaded(own_part(batch, plan, number), []) for number in range(plan.accumulation))
        losses.append(stepping.train_step(engine, micro, plan, loss.with_decoder(step)).figures["loss"])
        counts.append(len(calls))
    return {"gathers": counts, "losses": losses}


found = {"every step": gathers(1, 2), "every second": gathers(2, 4)}
stepping.follow_trace = lambda *_: None
found["every second, one trace"] = gathers(2, 4)
if distributed.rank() == 0:
    print(json.dumps(found), flush=True)
deepspeed.comm.destroy_process_group()
