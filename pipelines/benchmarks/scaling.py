"""Two ranks that work together, against two runs of one rank each at the same time."""

import os
import time
from pathlib import Path

import torch

from pipelines.benchmarks.models import Size, random_batch, random_framework
from pipelines.benchmarks.paired import ratio
from pipelines.benchmarks.processes import together
from pipelines.config import TrainConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.ports import free_port
from pipelines.engine.setup import build_engine, deepspeed_config

ZERO3 = Path(__file__).parents[2] / "deepspeed_configs" / "zero3.json"
NARROW = Size(256, 4)  # 4 million parameters: what is communicated is small against what is computed, as at 8 B


def efficiency(folder: Path, size: Size = NARROW, clips: int = 8, steps: int = 4, repeats: int = 3) -> float:
    """Samples per second of two ranks with ZeRO-3 over those of two single ranks; every rank has the same work."""
    runs = iter(range(4 * repeats))

    def seconds(ranks: int) -> float:
        """Of a step, of the slower process."""
        output = folder / f"run{next(runs)}"
        output.mkdir()
        ports = [free_port() for _ in range(2 // ranks)]
        calls = [(output, rank, ranks, port, size, clips, steps) for port in ports for rank in range(ranks)]
        together(run_rank, calls, "spawn")
        return max(float(file.read_text()) for file in output.glob("*.seconds"))

    return ratio(lambda: seconds(1), lambda: seconds(2), repeats)


def run_rank(output: Path, rank: int, ranks: int, port: int, size: Size, clips: int, steps: int) -> None:
    """One rank's steps on a batch of its own; the seconds of a step are written into ``output``."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1",
    )  # fmt: skip
    torch.set_num_threads(1)
    # Before the ranks know each other: transformers' save_pretrained writes on the first of them only.
    framework = random_framework(output / f"models-{port}-{rank}", size)
    distributed.connect()
    train = TrainConfig(max_steps=1, global_batch_size=clips * ranks, micro_batch_size=clips, precision="fp32")
    batch = random_batch(framework, clips)
    plan = plan_batch(train.global_batch_size, train.micro_batch_size, ranks)
    engine = build_engine(framework, deepspeed_config(ZERO3, train, plan), train)

    def step() -> None:
        engine.backward(engine(batch)["loss"])
        engine.step()

    step()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    (output / f"{port}-{rank}.seconds").write_text(str((time.perf_counter() - started) / steps))
