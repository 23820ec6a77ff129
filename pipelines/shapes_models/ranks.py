"""The decoder's resumable training loop, in one process or in several that share each batch.

The state of a training is one safetensors file: the weights by name, their running averages as ``average/NAME``, and
the optimisers' states as ``KIND/NAME``.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipelines.engine.ports import free_port
from pipelines.shapes_models.config import DecoderFitting
from pipelines.shapes_models.muon import AdamW, Muon, sum_up
from pipelines.shapes_study.fitting import LOG

STATE, AVERAGE = "state.safetensors", "average"
SAVE_SECONDS = 60  # between two saves
WARM_AVERAGE = 10  # the decay of the average starts low: (step + 1) / (step + 10), step from 0


def on_processes(processes: int, work: Callable[..., None], *arguments: object) -> None:
    """Runs ``work(*arguments)`` in several processes of this machine, joined in a gloo process group.

    Args:
        processes: Number of processes. With one, the work runs in this process.
        work: A function at the top level of a module.
        arguments: Its arguments.
    """
    if processes == 1:
        work(*arguments)
    else:
        torch.multiprocessing.spawn(joined, (processes, free_port(), work, arguments), processes)


def joined(rank: int, processes: int, port: int, work: Callable[..., None], arguments: tuple) -> None:
    """Joins the process group and runs the work, as one of the processes of :func:`on_processes`."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
    try:
        work(*arguments)
    finally:
        dist.destroy_process_group()


def rank_and_processes() -> tuple[int, int]:
    """Returns this process's number and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def train(
    module: nn.Module,
    loss: Callable[[torch.Generator, int], Tensor],
    is_matrix: Callable[[str, nn.Parameter], bool],
    fitting: DecoderFitting,
    folder: Path,
) -> None:
    """Trains a module, or resumes its training. Rank 0 keeps the state and ``log.jsonl`` in the folder.

    Args:
        module: The module, which is trained in place.
        loss: Computes this process's loss of a step, from a generator for its draws and its number of samples.
        is_matrix: Whether Muon trains a parameter, given its name and the parameter.
        fitting: The settings.
        folder: Folder of the state and the log.
    """
    rank, processes = rank_and_processes()
    named = dict(module.named_parameters())
    matrices = [p for name, p in named.items() if is_matrix(name, p)]
    others = [p for name, p in named.items() if not is_matrix(name, p)]
    optimisers = {Muon(matrices, 0.0): fitting.muon, AdamW(others, 0.0): 1.0}
    average = {name: parameter.detach().clone() for name, parameter in named.items()}
    begun = resume(folder, named, average, list(optimisers))
    saved = time.time()
    with (folder / LOG if rank == 0 else Path(os.devnull)).open("a") as log:
        for step in range(begun, fitting.steps):
            draws = torch.Generator().manual_seed(step * processes + rank)
            value = loss(draws, fitting.batch_size // processes)
            value.backward()
            value = mean_over_processes(named, value.detach())
            for optimiser, factor in optimisers.items():
                optimiser.param_groups[0]["lr"] = factor * fitting.lr * schedule(step, fitting)
                optimiser.step()
                optimiser.zero_grad()
            kept = min(fitting.average, (step + 1) / (step + WARM_AVERAGE))
            torch._foreach_lerp_(list(average.values()), [p.detach() for p in named.values()], 1 - kept)
            log.write(json.dumps({"step": step + 1, "loss": round(float(value), 5)}) + "\n")
            if rank == 0 and (step + 1 == fitting.steps or time.time() - saved > SAVE_SECONDS):
                log.flush()
                save(folder / STATE, named, average, list(optimisers), step + 1)
                saved = time.time()


def schedule(step: int, fitting: DecoderFitting) -> float:
    """Returns the factor on the learning rate: a linear warm-up, then 1, then a linear fall to zero."""
    return min(1.0, (step + 1) / fitting.warmup) * min(1.0, (1 - step / fitting.steps) / fitting.cooldown)


@torch.no_grad()
def mean_over_processes(named: dict[str, nn.Parameter], loss: Tensor) -> Tensor:
    """Averages the gradients over all processes, in place; returns the mean loss."""
    _, processes = rank_and_processes()
    if processes > 1:
        means = [*(parameter.grad for parameter in named.values()), loss]
        for tensor in means:
            tensor.div_(processes)
        sum_up(means)
    return loss


def save(
    path: Path,
    named: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimisers: list[torch.optim.Optimizer],
    step: int,
) -> None:
    """Writes the state after ``step`` steps; the file appears only when it is complete."""
    tensors = {name: parameter.detach() for name, parameter in named.items()}
    tensors |= {f"{AVERAGE}/{name}": value for name, value in average.items()}
    for optimiser in optimisers:
        for name, parameter in named.items():
            kept = optimiser.state.get(parameter, {}).items()
            tensors |= {f"{what}/{name}": value for what, value in kept}
    part = path.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, {"step": str(step)})
    part.replace(path)


@torch.no_grad()
def resume(
    folder: Path, named: dict[str, nn.Parameter], average: dict[str, Tensor], optimisers: list[torch.optim.Optimizer]
) -> int:
    """Loads the stored state, if any, and returns its number of steps. Removes later lines of the log."""
    path, log = folder / STATE, folder / LOG
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    if rank_and_processes()[0] == 0:
        lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]
        log.write_text("".join(f"{line}\n" for line in lines))
    owner = {id(p): optimiser for optimiser in optimisers for p in optimiser.param_groups[0]["params"]}
    for key, value in load_file(path).items():
        what, _, name = key.rpartition("/")
        if not what:
            named[name].copy_(value)
        elif what == AVERAGE:
            average[name].copy_(value)
        else:
            owner[id(named[name])].state[named[name]][what] = value
    return step


def averaged(folder: Path) -> dict[str, Tensor]:
    """Returns the running averages of a training's stored state, by name of the parameter."""
    stored = load_file(folder / STATE)
    return {key.removeprefix(f"{AVERAGE}/"): value for key, value in stored.items() if key.startswith(f"{AVERAGE}/")}


def losses(folder: Path) -> list[float]:
    """Returns the losses in a training's log, one per step."""
    return [json.loads(line)["loss"] for line in (folder / LOG).read_text().splitlines()]
