"""What a run tells: ``log.jsonl``, TensorBoard and a progress bar, all on rank 0."""

import hashlib
import json
import os
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


def batch_digest(keys: list[str]) -> str:
    """Hash of the keys of a global batch's samples, in global order."""
    return hashlib.blake2b("\n".join(keys).encode(), digest_size=8).hexdigest()


def in_global_order(keys_by_rank: list[list[list[str]]]) -> list[str]:
    """Keys of a global batch from those of each rank's micro-batches: by accumulation step, then by rank."""
    return [key for step in zip(*keys_by_rank) for micro_batch in step for key in micro_batch]


class Metrics:
    """Writes one line per optimiser step.

    Args:
        output: the run's folder.
        step: step the run starts from; later lines of an earlier attempt are dropped.
        max_steps: for the progress bar.
    """

    def __init__(self, output: Path, step: int, max_steps: int):
        truncate_log(output / "log.jsonl", step)
        self.log = (output / "log.jsonl").open("a")
        self.tensorboard = SummaryWriter(output / "tensorboard", purge_step=step + 1)
        self.bar = tqdm(total=max_steps, initial=step, unit="step", desc="training", dynamic_ncols=True)

    def write(self, line: dict) -> None:
        """One step's figures: ``step`` and numbers, or text that only the log takes."""
        print(json.dumps(line, allow_nan=False), file=self.log, flush=True)
        for name, value in line.items():
            if name != "step" and isinstance(value, (int, float)):
                self.tensorboard.add_scalar(name, value, line["step"])
        self.bar.set_postfix(
            {name: f"{line[name]:.3f}" for name in ("loss", "lr") if line.get(name) is not None}, refresh=False
        )
        self.bar.update()

    def close(self) -> None:
        self.log.close()
        self.tensorboard.close()
        self.bar.close()


def truncate_log(path: Path, step: int) -> None:
    """Keep the lines up to ``step``; what a killed run wrote behind its last checkpoint is done again."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines(keepends=True) if is_kept(line, step)]
    part = path.with_suffix(".part")
    part.write_text("".join(kept))
    os.replace(part, path)


def is_kept(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except ValueError:  # the line a killed process was writing
        return False
