"""One rank: steps whose loss or gradient is not finite leave no trace in the steps after them.

deepspeed --num_gpus 2 finite_worker.py MODELS DS_CONFIG:PRECISION ...
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import json
import math

import deepspeed
import torch

from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.internals import masters, optimiser_of
from pipelines.engine.loading.loader import Loaded
from pipelines.engine.setup import build_engine
from pipelines.engine.stepping import train_step
from pipelines.engine.watching.metrics import json_value
from support.engines import all_sharded, own_part
from support.tiny import make_batch, model_config
from vtok.assembly.build import build_framework
from vtok.framework import VTokFramework

ACCUMULATION = 2


class InfiniteGradient(torch.autograd.Function):
    """A finite value, the gradient of which is not."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


class Spoilt(VTokFramework):
    """Spoils rank 1's loss, leaving its gradient finite, or only the gradient, in the forward so many after a plan."""

    def plan_to_spoil(self, how: str | None, forward: int = 0):
        self.how, self.forwards_left = how, forward

    def forward(self, batch, **options):
        losses = super().forward(batch, **options)
        if self.how and distributed.rank() == 1 and self.forwards_left == 0:
            spoil = InfiniteGradient.apply if self.how == "gradient" else lambda loss: loss + float(self.how)
            losses["loss"] = spoil(losses["loss"])
        self.forwards_left -= 1
        return losses


def make_engine(models, ds_config, train, plan):
    torch.manual_seed(0)
    framework = build_framework(model_config(models))
    framework.__class__ = Spoilt
    framework.plan_to_spoil(None)
    return build_engine(framework, all_sharded(ds_config, train, plan), train)


def batches(framework, plan):
    """This rank's micro-batches of the same four clips, over and over."""
    batch = make_batch(framework)
    while True:
        for step in range(plan.accumulation):
            yield Loaded(own_part(batch, plan, step), [])


def state_of(engine):
    """This rank's master weights, moments and step counters, and the weights the forward uses, as copies."""
    flats = masters(engine)
    state = {f"{part} of group {group}": torch.as_tensor(value).clone()
             for group, master in enumerate(flats)
             for part, value in {"master": master, **optimiser_of(engine).state[master]}.items()}  # fmt: skip
    assert sum("exp_avg_sq" in name for name in state) == sum("step" in name for name in state) == len(flats)
    trained = [(name, p) for name, p in engine.module.named_parameters() if p.requires_grad]
    return state | {name: getattr(p, "ds_tensor", p).detach().clone() for name, p in trained}


def assert_same(ours, theirs, context):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), (context, name)


def spoilt_run(engine, plan):
    """Good steps with all kinds of bad ones between; the lines and the states of the good ones."""
    mine, good = batches(engine.module, plan), []
    for how, forward in (("nan", 0), ("inf", 1), ("gradient", 0)):
        engine.module.plan_to_spoil(None)
        step = train_step(engine, mine, plan)
        assert step.applied and step.figures["grad_norm"] > 0
        state = state_of(engine)
        good.append((step.figures, state))

        engine.module.plan_to_spoil(how, forward)
        step = train_step(engine, mine, plan)
        assert step.applied == (False,) and step.keys == [f"clip{i}" for i in range(4)], (how, forward, step)
        line = {name: json_value(value) for name, value in step.figures.items()}
        assert line["grad_norm"] is None and (line["loss"] is None) == (how != "gradient"), line
        json.dumps(line, allow_nan=False)
        assert_same(state_of(engine), state, (how, forward))
    return good


def undisturbed_run(engine, plan, steps):
    mine = batches(engine.module, plan)
    return [(train_step(engine, mine, plan).figures, state_of(engine)) for _ in range(steps)]


models, *cases = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
distributed.connect()
for case in cases:
    ds_config, precision = case.split(":")
    train = TrainConfig(max_steps=9, lr=1e-2, global_batch_size=4, micro_batch_size=1, precision=precision)
    plan = plan_batch(4, 1, distributed.world_size())
    assert plan.accumulation == ACCUMULATION
    spoilt = spoilt_run(make_engine(models, ds_config, train, plan), plan)
    undisturbed = undisturbed_run(make_engine(models, ds_config, train, plan), plan, len(spoilt))
    for (line, state), (other_line, other_state) in zip(spoilt, undisturbed, strict=True):
        for name in ("loss", "loss_under", "loss_vis_lm", "loss_dec", "grad_norm"):
            assert line[name] == other_line[name], (case, name)
        assert_same(state, other_state, case)
    print(f"rank {distributed.rank()}: {case} leaves no trace", flush=True)
deepspeed.comm.destroy_process_group()
