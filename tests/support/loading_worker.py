"""One rank: the most host memory that loading a framework's shards takes, as a line of JSON.

deepspeed --num_gpus R loading_worker.py TINY_MODELS MODELS

Loading reads files and maps none, so that the peak of the resident set, which the kernel keeps, is the process's own.
"""

import json
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import deepspeed
import torch

from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.setup import deepspeed_config
from pipelines.engine.weights import placement
from support.launch import REPO
from support.tiny import model_config
from vtok.assembly.build import build_framework
from vtok.weights import shapes_of


def resident_bytes(name: str) -> int:
    """``VmRSS`` or its peak ``VmHWM`` of this process."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024


tiny, models = sys.argv[-2:]
distributed.connect()
plan = plan_batch(distributed.world_size(), 1, distributed.world_size())
config = deepspeed_config(REPO / "deepspeed_configs" / "zero3.json", TrainConfig(max_steps=1, precision="bf16"), plan)
build_framework(model_config(tiny), placement(config, torch.bfloat16))  # imports what is imported at first use

before = resident_bytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
framework = build_framework(model_config(models), placement(config, torch.bfloat16))
peak = resident_bytes("VmHWM") - before
print("LOADED " + json.dumps({
    "peak": peak,
    "after": resident_bytes("VmRSS") - before,
    "shard": sum(p.ds_tensor.numel() * p.ds_tensor.element_size() for p in framework.parameters()),
    "total": sum(2 * p.ds_numel for p in framework.parameters()),
    "largest": max(2 * torch.Size(shape).numel() for shape in shapes_of(framework).values()),
}) + "\n", end="", flush=True)  # fmt: skip
deepspeed.comm.destroy_process_group()
