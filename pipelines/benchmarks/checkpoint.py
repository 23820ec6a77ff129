"""What saving costs a run: how long training stands still of the time it takes to write a checkpoint."""

import time
from pathlib import Path
from statistics import median

import deepspeed
import torch
from torch import nn

from pipelines.config import CheckpointConfig, TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.internals import start_moments
from pipelines.engine.saving.checkpoint import RunState
from pipelines.engine.saving.writing import Writer
from pipelines.engine.setup import build_engine, deepspeed_config
from vtok.feature_scale import FeatureScale

ZERO3 = Path(__file__).parents[2] / "deepspeed_configs" / "zero3.json"
WIDTH = 4096


class Stack(nn.Module):
    """Matrices to save, and the one part of the framework that checkpoints write apart."""

    def __init__(self, parameters: int):
        super().__init__()
        layers = -(-parameters // WIDTH**2)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers))
        self.measured = nn.ModuleDict({"spatial": FeatureScale(8)})


def saving(folder: Path, parameters: int = 100_000_000, repeats: int = 3) -> dict[str, float]:
    """Seconds of the write and share of them that training waits, one rank, weights and both moments in fp32.

    While the thread writes, the main thread multiplies matrices, as training does. The host memory is taken before the
    first save, which is reported apart.
    """
    distributed.connect()
    train = TrainConfig(max_steps=1, global_batch_size=1, precision="fp32")
    engine = build_engine(Stack(parameters), deepspeed_config(ZERO3, train, plan_batch(1, 1, 1)), train)
    start_moments(engine, 1)
    (folder / "config.yaml").write_text("")
    writer = Writer(folder, CheckpointConfig(keep=1), engine, None)
    shares, seconds = [], []
    work = torch.randn(512, 512)
    for step in range(1, repeats + 2):
        started = time.perf_counter()
        stalled = writer.save(RunState(step, 1, 0, 0, "", 1, {}, {}))
        while writer.saving is not None:
            work @ work
            writer.poll()
        seconds.append(time.perf_counter() - started)
        shares.append(stalled / seconds[-1])
    deepspeed.comm.destroy_process_group()
    return dict(seconds=median(seconds[1:]), stalled=median(shares[1:]), first_stalled=shares[0])
