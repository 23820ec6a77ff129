"""What the workers that build engines of the tiny framework share."""

import sys

import deepspeed
import torch

from data_tools.order import micro_batch_positions
from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import BatchPlan, plan_batch
from pipelines.engine.setup import deepspeed_config
from support.launch import REPO
from support.tiny import part


def begin(samples: int) -> tuple[str, TrainConfig, BatchPlan]:
    """Connects the ranks. Returns the command's argument, settings, and the plan of a step of so many samples."""
    (models,) = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    distributed.connect()
    train = TrainConfig(max_steps=1, global_batch_size=samples, micro_batch_size=1)
    return models, train, plan_batch(samples, 1, distributed.world_size())


def all_sharded(ds_config: str, train, plan: BatchPlan) -> dict:
    """One of our DeepSpeed configurations, completed; under ZeRO-3 it shards these tiny parameters too.

    The process keeps an engine's bucket, of 2 GB by default, until it ends. Here it has 40 MB.
    """
    config = deepspeed_config(REPO / "deepspeed_configs" / ds_config, train, plan)
    config["zero_optimization"]["reduce_bucket_size"] = 10_000_000
    if config["zero_optimization"]["stage"] == 3:
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return config


def own_part(batch, plan: BatchPlan, step: int):
    """This rank's clips of a global batch in one accumulation step."""
    data_rank = distributed.rank() // plan.sequence_parallel
    positions = micro_batch_positions(0, step, data_rank, plan.data_ranks, plan.micro_batch_size)
    return part(batch, list(positions))


def assert_frozen_kept(engine, values: dict, told) -> None:
    """Asserts that the frozen parameters have these values and dtypes."""
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            with deepspeed.zero.GatheredParameters([parameter]):
                assert parameter.dtype == values[name].dtype and torch.equal(parameter, values[name]), (told, name)
