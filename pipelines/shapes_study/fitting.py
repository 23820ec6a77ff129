"""The resumable training loop of the models that a study freezes afterwards. A batch depends on the step alone."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipelines.shapes_study.config import Fitting

SAVE_SECONDS = 60  # between two saved states
LOG, STATE = "log.jsonl", "state.safetensors"


def fit(module: nn.Module, loss: Callable[[int], Tensor], fitting: Fitting, folder: Path) -> list[float]:
    """Trains a module, or resumes its training, and returns the losses of all steps.

    Args:
        module: Its parameters that require gradients are trained in place.
        loss: Computes the loss of a step; steps count from 0.
        fitting: Steps and learning rate.
        folder: Keeps the state and ``log.jsonl``.
    """
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(parameters.values(), lr=fitting.lr, weight_decay=0.01)
    state, log = folder / STATE, folder / LOG
    losses = resume(state, log, parameters, optimiser)
    saved = time.time()
    with log.open("a") as file:
        for step in range(len(losses), fitting.steps):
            for group in optimiser.param_groups:
                group["lr"] = fitting.lr * schedule(step, fitting)
            value = loss(step)
            optimiser.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimiser.step()
            losses.append(float(value.detach()))
            file.write(json.dumps({"step": step + 1, "loss": losses[-1]}) + "\n")
            if step + 1 == fitting.steps or time.time() - saved > SAVE_SECONDS:
                file.flush()
                save(state, parameters, optimiser, step + 1)
                saved = time.time()
    return losses


def schedule(step: int, fitting: Fitting) -> float:
    """Returns the factor on the learning rate: a linear warm-up times a cosine down to zero."""
    warm = min(1.0, (step + 1) / max(fitting.warmup, 1))
    return warm * 0.5 * (1 + math.cos(math.pi * step / fitting.steps))


def save(path: Path, parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, step: int) -> None:
    """Writes weights and AdamW's moments after ``step`` steps; the file appears only when it is complete."""
    tensors = {name: p.detach() for name, p in parameters.items()}
    for name, parameter in parameters.items():
        tensors |= {f"{moment}/{name}": optimiser.state[parameter][moment] for moment in ("exp_avg", "exp_avg_sq")}
    part = path.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, {"step": str(step)})
    part.replace(path)


@torch.no_grad()
def resume(path: Path, log: Path, parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> list[float]:
    """Loads the stored state, if there is one, and returns the losses up to it.

    Later lines of the log are removed.
    """
    if not path.exists():
        log.unlink(missing_ok=True)
        return []
    stored = load_file(path)
    lines = log.read_text().splitlines()[: stored_step(path)]
    log.write_text("".join(f"{line}\n" for line in lines))
    for name, parameter in parameters.items():
        parameter.copy_(stored[name])
        moments = {moment: stored[f"{moment}/{name}"] for moment in ("exp_avg", "exp_avg_sq")}
        optimiser.state[parameter] = {moment: value.to(parameter.device) for moment, value in moments.items()}
        optimiser.state[parameter]["step"] = torch.tensor(float(len(lines)))
    return [json.loads(line)["loss"] for line in lines]


def stored_step(path: Path) -> int:
    """Returns the number of steps of a stored state."""
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def mean_of_last(losses: list[float]) -> float:
    """Returns the mean loss of the last tenth of the steps."""
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def mean_of_first(losses: list[float]) -> float:
    """Returns the mean loss of the first tenth of the steps."""
    return mean_of_last(losses[::-1])
