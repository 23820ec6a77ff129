"""One rank: what ZeRO-3's hooks ask of the host in a micro-step, as a line of JSON.

deepspeed --num_gpus R hooks_worker.py MODELS
"""

import inspect
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import deepspeed
import torch
from torch import nn

from pipelines.engine import distributed
from pipelines.engine.setup import build_engine
from support.engines import all_sharded, begin, own_part
from support.tiny import make_batch, model_config
from vtok.assembly.build import build_framework

models, train, plan = begin(2)
torch.manual_seed(0)
configuration = model_config(models)
configuration.mllm.gradient_checkpointing = configuration.decoder.gradient_checkpointing = True
framework = build_framework(configuration)
batch = own_part(make_batch(framework), plan, 0)
engine = build_engine(framework, all_sharded("zero3.json", train, plan), train)


def micro_step() -> None:
    engine.backward(engine(batch)["loss"])


for _ in range(3):  # in which ZeRO-3 records the order of the modules, and then follows it
    micro_step()
    engine.step()

inspected, listed, signature, named = [], [], inspect.signature, nn.Module.named_parameters
inspect.signature = lambda function, **options: inspected.append(function) or signature(function, **options)
nn.Module.named_parameters = lambda *args, **options: listed.append(1) or named(*args, **options)
micro_step()
inspect.signature, nn.Module.named_parameters = signature, named

hooked = [name for name, module in engine.module.named_modules() if "pre_bwd_fn" in module.__dict__]
forwards = sum(function.__name__ == "forward" for function in inspected)  # of functions in the graph
if distributed.rank() == 0:
    print(json.dumps({"hooked": hooked, "signatures": forwards, "listings": len(listed)}), flush=True)
deepspeed.comm.destroy_process_group()
