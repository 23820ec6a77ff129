"""The end of every run's preparation: the folder becomes a run, or the run goes on; then its steps are counted."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipelines.cli.config_files import save_config
from pipelines.config import OptimisationConfig
from pipelines.engine import distributed
from pipelines.engine.batch_plan import BatchPlan
from pipelines.engine.changed_settings import resumed_lines
from pipelines.engine.loop import Player, Run, Settings
from pipelines.engine.saving import checkpoint, choosing


def begin(
    config: Settings,
    folders: list[Path],
    found: list[Path],
    plan: BatchPlan,
    players: list[Player],
    samples: int,
    at_step_0: Callable[[], None] = lambda: None,
) -> Run:
    """Writes the configuration, resumes if there is something to resume, and returns the run as the loop sees it.

    A run that starts at step 0 where an earlier attempt has taken steps sets aside what that has left.

    It is called after the last check that can refuse the run, since a folder with a configuration counts as a run. All
    ranks call it.

    Args:
        config: The run's configuration.
        folders: The folder of each player; the first is the run's.
        found: The checkpoint that each player resumes from; empty if the run is new.
        plan: How a batch is split among the ranks.
        players: The modules in training.
        samples: Samples of the dataset.
        at_step_0: Does what a new run needs before its first step.
    """
    for folder in folders:
        distributed.rank_zero_first(partial(save_config, config, folder / "config.yaml"))
    for player, folder, stored in zip(players, folders, found):
        distributed.rank_zero_first(partial(choosing.set_later_aside, folder, player.state.step))
        checkpoint.resume(player.engine, player.ema, stored, player.state)
        player.state.ranks = plan.ranks
    if not found:
        # A player may have checkpoints, but of no step that all players have saved.
        for folder in folders:
            distributed.rank_zero_first(partial(choosing.set_later_aside, folder, 0))
        distributed.rank_zero_first(partial(choosing.set_logs_aside, folders[0]))
        at_step_0()
    output, state = folders[0], players[0].state
    max_steps = number_of_steps(config.train, samples, state.step, state.consumed_samples)
    run = Run(config, output, plan, players, max_steps)
    lines = []
    if run.finished:
        lines = [done_line(output, state.step, max_steps, config.train)]
    elif found:
        lines = distributed.rank_zero_first(partial(resumed_lines, config, found[0], state.step))
    if lines and distributed.rank() == 0:
        print("\n".join(lines), flush=True)
    return run


def number_of_steps(train: OptimisationConfig, samples: int, step: int = 0, consumed: int = 0) -> int:
    """Returns the number of a run's last step.

    Epochs count samples: a run that goes on with another batch takes the steps that the remaining samples need.

    Args:
        train: Settings of the run.
        samples: Samples of the dataset.
        step: Steps that the run has taken.
        consumed: Samples that it has consumed in them.
    """
    if train.max_steps:
        return train.max_steps
    return step + max(0, math.ceil((train.epochs * samples - consumed) / train.global_batch_size))


def done_line(output: Path, step: int, max_steps: int, train: OptimisationConfig) -> str:
    """Says that a run has nothing left to do, and how to make it go on."""
    setting = "train.max_steps" if train.max_steps else "train.epochs"
    return f"{output} is finished: it has taken step {step} of {max_steps}; raise {setting} to train on"
