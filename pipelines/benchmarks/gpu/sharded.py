"""A framework under DeepSpeed's ZeRO-3 on one rank, as a run has it."""

from collections.abc import Callable
from itertools import repeat
from pathlib import Path

from pipelines.benchmarks.gpu.measure import Work
from pipelines.benchmarks.gpu.sizes import Sizes
from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.loading.loader import Loaded
from pipelines.engine.setup import build_engine, deepspeed_config, precision
from pipelines.engine.stepping import train_step
from pipelines.engine.weights import placement
from vtok.framework import VTokFramework
from vtok.rows.batch import Batch
from vtok.weights.materialise import Place

ZERO3 = Path(__file__).parents[3] / "deepspeed_configs" / "zero3.json"


def start_sharded(
    build: Callable[[Place], VTokFramework], batch_of: Callable[[VTokFramework, Sizes], Batch], sizes: Sizes
) -> tuple[Work, Work, Work]:
    """Forward and backward, the update after it, and a run's step of one micro-step."""
    distributed.connect()
    train = TrainConfig(max_steps=1, global_batch_size=1)
    plan = plan_batch(1, 1, 1)
    ds_config = deepspeed_config(ZERO3, train, plan)
    framework = build(placement(ds_config, precision(train)))
    engine = build_engine(framework, ds_config, train)
    batch = batch_of(framework, sizes).to(engine.device)

    def micro_step() -> None:
        engine.backward(engine(batch)["loss"])

    return micro_step, engine.step, lambda: train_step(engine, repeat(Loaded(batch, [])), plan)
