"""Bytes of one rank's engine and of what autograd saves in a real forward of the tiny models, for a typical workload.

deepspeed --num_gpus R plan_worker.py MODELS_FOLDER CHECKPOINTING PARTS RANKS_OF_A_SAMPLE
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import deepspeed
import torch

from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.internals import masters
from pipelines.engine.setup import build_engine, deepspeed_config
from pipelines.metering.workload import typical_workload
from support.launch import REPO
from support.tiny import planned_batch, planned_config
from vtok.assembly.build import build_framework
from vtok.parts import train_only


def unique_bytes(tensors):
    """Bytes of the storages behind some tensors, each once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def engine_tensors(engine):
    """Shards, persistent parameters, gradients, master weights and moments."""
    optimiser = engine.optimizer
    for parameter in engine.module.parameters():
        yield parameter.ds_tensor
        if parameter.ds_persist:
            yield parameter.data
    yield optimiser.grad_partitions_flat_buffer
    yield from optimiser.fp32_partitioned_groups_flat
    for state in optimiser.optimizer.state.values():
        yield state["exp_avg"]
        yield state["exp_avg_sq"]


def saved_bytes(engine, batch):
    """Bytes of what autograd keeps of a forward, parameters apart."""
    saved = []

    def pack(tensor):
        parameters = {p.data.untyped_storage().data_ptr() for p in engine.module.parameters()}
        if tensor.untyped_storage().data_ptr() not in parameters:
            saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = engine(batch)["loss"]
    total = unique_bytes(saved)
    engine.backward(loss)
    engine.step()
    return total


def main(models, checkpointing, parts, shared_by):
    distributed.connect()
    config = planned_config(models, checkpointing == "True", json.loads(parts))
    train, ranks = config.train, distributed.world_size()
    plan = plan_batch(train.global_batch_size, train.micro_batch_size, ranks, sequence_parallel=int(shared_by))
    framework = build_framework(config.model)
    train_only(framework, framework.learnable, config.train.parts)
    load = typical_workload(config, framework, plan.micro_batch_size, text=framework.text)
    ds_config = deepspeed_config(REPO / "deepspeed_configs" / "zero3.json", config.train, plan)
    if plan.sequence_parallel > 1:
        framework.decoder.share(distributed.sequence_group(plan.sequence_parallel))
    engine = build_engine(framework, ds_config, config.train)
    saved_bytes(engine, planned_batch(load))  # the first step makes the moments
    saved = saved_bytes(engine, planned_batch(load))
    (bucket,) = engine.optimizer.ipg_buckets.values()
    line = {
        "engine": unique_bytes(engine_tensors(engine)),
        "saved": saved,
        "bucket": bucket.buffer.nbytes,
        "masters": sum(flat.numel() for flat in masters(engine)),
        "trained": sum(p.ds_numel for p in engine.module.parameters() if p.requires_grad),
    }
    print(f"MEASURED {json.dumps(line)}", flush=True)
    deepspeed.comm.destroy_process_group()


main(*sys.argv[-4:])
