"""Ranks that train a few steps under one DeepSpeed configuration after another: EMA against a plain copy of it, and
checkpoints written under one configuration read under the next.

deepspeed --num_gpus R ema_worker.py MODELS FOLDER
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import deepspeed
import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

from pipelines.cli.steps import folder_of
from pipelines.config import CheckpointConfig, TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.internals import MOMENTS, masters, moments, partitions
from pipelines.engine.saving import checkpoint
from pipelines.engine.saving.ema import Ema, decay_at
from pipelines.engine.saving.folders import newest
from pipelines.engine.saving.slices import SliceReader
from pipelines.engine.saving.writing import Writer
from pipelines.engine.setup import build_engine, deepspeed_config
from support.engines import own_part
from support.launch import REPO
from support.tiny import make_batch, model_config, part
from vtok.assembly.build import build_framework

models, output = sys.argv[-2], Path(sys.argv[-1])
distributed.connect()
ranks, rank = distributed.world_size(), distributed.rank()

# Every parameter sharded, with accumulation; small ones whole on every rank; ZeRO-2; all in host memory.
SETTINGS = {
    "sharded": ("zero3.json", dict(stage3_param_persistence_threshold=0), 4 // ranks // 2),
    "persistent": ("zero3.json", dict(stage3_param_persistence_threshold=100_000), 4 // ranks),
    "zero2": ("zero3.json", dict(stage=2), 4 // ranks // 2),
    "offload": (
        "zero3.json", dict(offload_optimizer=dict(device="cpu"), offload_param=dict(device="cpu")), 4 // ranks
    ),
}  # fmt: skip


def engine_with(name: str):
    """A new engine, always from the same weights."""
    json_name, changes, micro_batch = SETTINGS[name]
    torch.manual_seed(0)
    framework = build_framework(model_config(models))
    train = TrainConfig(max_steps=1, global_batch_size=4, micro_batch_size=micro_batch, lr=1e-2)
    plan = plan_batch(4, micro_batch, ranks)
    config = deepspeed_config(REPO / "deepspeed_configs" / json_name, train, plan)
    config["zero_optimization"] |= changes
    config["zero_force_ds_cpu_optimizer"] = True
    return build_engine(framework, config, train), plan


def step(engine, plan, batch):
    """One update."""
    for number in range(plan.accumulation):
        engine.backward(engine(own_part(batch, plan, number))["loss"])
        engine.step()


@torch.no_grad()
def loss_of(engine, batch) -> float:
    return float(engine.module(part(batch, [0, 1]))["loss"])


def trained(engine):
    return [(name, p) for name, p in engine.module.named_parameters() if p.requires_grad]


def full_state(engine) -> dict[str, torch.Tensor]:
    """Every trained parameter's master and moments, whole."""
    state = {f"weights/{name}": safe_get_full_fp32_param(p).clone() for name, p in trained(engine)}
    for kind in MOMENTS:
        state |= {f"{kind}/{name}": safe_get_full_optimizer_state(p, kind).clone() for name, p in trained(engine)}
    return {key: value.cpu() for key, value in state.items()}


before = random_state = None
for name in SETTINGS:
    engine, plan = engine_with(name)
    ema = Ema(engine, decay=0.7, warmup=True)
    batch = make_batch(engine.module)
    if before:  # what the last setting wrote
        folder, saved, saved_average = before
        state = checkpoint.read_state(folder)
        checkpoint.resume(engine, ema, folder, state)
        assert torch.equal(torch.get_rng_state(), random_state)
        for own in partitions(engine):  # DeepSpeed's own reader of moments works from the first update on
            for kind, flats in [("weights", masters(engine)), *((kind, moments(engine, kind)) for kind in MOMENTS)]:
                whole = saved[f"{kind}/{own.name}"].flatten()
                assert torch.equal(own.of(flats).cpu(), whole[own.start : own.start + own.numel]), (name, kind, own)
        for key, p in trained(engine):
            assert torch.equal(safe_get_full_fp32_param(p).cpu(), saved[f"weights/{key}"]), (name, key)
        average = saved_average
    else:
        average = {n: safe_get_full_fp32_param(p).clone().cpu() for n, p in trained(engine)}
        state = checkpoint.RunState(0, 0, 0, 0, "", ranks, checkpoint.trained_shapes(engine.module), {})

    for _ in range(3):
        step(engine, plan, batch)
        state.updates += 1
        ema.update(state.updates)
        decay = decay_at(state.updates, 0.7, True)
        for key, p in trained(engine):
            average[key] = decay * average[key] + (1 - decay) * safe_get_full_fp32_param(p).cpu()

    weights = full_state(engine)
    ours = torch.cat([average[key].flatten() for key, _ in trained(engine)]).double()
    theirs = torch.cat([weights[f"weights/{key}"].flatten() for key, _ in trained(engine)]).double()
    expected = float((ours - theirs).norm() / theirs.norm())
    assert abs(ema.distance() - expected) <= 1e-5 * expected, (name, ema.distance(), expected)
    assert expected > 1e-3

    live = loss_of(engine, batch)
    with ema.applied():
        averaged = loss_of(engine, batch)
        assert averaged != live, name
    assert loss_of(engine, batch) == live, f"{name}: leaving the average does not restore the weights"
    for key, value in full_state(engine).items():
        assert torch.equal(value, weights[key]), (name, key)

    # The same loss from a plain model that is given the reference's average.
    torch.manual_seed(0)
    plain = build_framework(model_config(models)).train()
    for key, p in plain.named_parameters():
        if key in average:
            p.data.copy_(average[key])
    with torch.no_grad():
        reference = float(plain(part(batch, [0, 1]))["loss"])
    assert abs(averaged - reference) <= 1e-5 * abs(reference), (name, averaged, reference)

    state.step += 3
    torch.manual_seed(1000 * state.step + rank)
    random_state = torch.get_rng_state()
    (output / "config.yaml").write_text("seed: 0\n")
    writer = Writer(output, CheckpointConfig(keep=9), engine, ema)
    writer.save(state)
    writer.wait()
    folder = newest(output)
    assert folder == folder_of(output, state.step)
    with SliceReader(folder) as stored:
        for key, value in weights.items():
            saved = torch.empty_like(value)
            stored.read_into(saved.view(-1), key, 0)
            assert torch.equal(saved, value), (name, key)
        for key, value in average.items():
            saved = torch.empty_like(value)
            stored.read_into(saved.view(-1), f"ema/{key}", 0)
            assert torch.allclose(saved, value, rtol=1e-5, atol=1e-7), (name, key)
            average[key] = saved
    before = folder, weights, average
    distributed.barrier()
    print(f"rank {rank}: {name} agrees, live {live:.6f}, average {averaged:.6f}", flush=True)
deepspeed.comm.destroy_process_group()
