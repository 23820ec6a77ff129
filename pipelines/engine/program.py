"""Runs a training command: requests to stop, one-line messages for errors that the user can correct, exit codes."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import torch
from safetensors import SafetensorError

from data_tools.errors import DataError
from pipelines.cli.errors import is_of_the_machine, is_out_of_memory, one_line
from pipelines.cli.parsing import Config, RunArguments
from pipelines.engine import distributed, roll_call
from pipelines.engine.internals import first_to_say
from pipelines.engine.run_control import STOPPED, UNSAVED, Stopper, end_children, leave
from pipelines.engine.saving.persistent import Unsaved
from pipelines.engine.streams import tolerant
from vtok.config import ConfigError

LESS_MEMORY = "lower train.micro_batch_size or the buckets of the DeepSpeed JSON; pipelines/plan.py tells what fits"
MEND = 2  # exit code after an error that the user can correct
RANK_ZERO_FIRST = 0.5  # seconds that other ranks wait, so that rank 0 reports an error that all ranks share


@tolerant()
def run_program(
    name: str, arguments: RunArguments[Config], train: Callable[[RunArguments[Config], Stopper], bool]
) -> None:
    """Runs a training command, from its arguments to its exit code.

    Without a launcher, signal handlers and environment are restored afterwards, since the calling program may go on.

    Exit codes: 0 finished; 75 saved and stopped early; 2 an error that the user can correct, reported in one line;
    74 a disk failed after the first step, reported in one line; 1 another rank was lost. Any other error is raised.

    Args:
        name: Name of the command. Its messages begin with it.
        arguments: Arguments of the run.
        train: Runs the whole training; returns whether it took its last step.
    """
    others = multiprocessing.active_children()
    stopper = Stopper(name)
    linear = torch.nn.functional.linear  # ZeRO-3 sets its own in its place
    try:
        with distributed.connected(), roll_call.joined():
            finished = train(arguments, stopper)
    except (ConfigError, DataError) as error:
        end_with(stopper, error, MEND)
    except (OSError, SafetensorError) as error:
        if not is_of_the_machine(error):
            raise
        end_with(stopper, error, UNSAVED if stopper.begun else MEND)
    except Unsaved as error:
        end_with(stopper, error, UNSAVED)
    except RuntimeError as error:
        if is_out_of_memory(error) and not stopper.begun:
            end_with(stopper, ConfigError(f"out of memory ({one_line(error)}): {LESS_MEMORY}"), MEND)
        if not distributed.is_lost_peer(error):
            raise
        stopper.end_without_peer(error)
    finally:
        stopper.closed = True
        roll_call.linger()
        end_children(keep=others)
        if not distributed.is_launched(os.environ):
            stopper.dismiss()
            torch.nn.functional.linear = linear
    if not finished:
        leave(STOPPED)


def end_with(stopper: Stopper, error: Exception, code: int) -> NoReturn:
    """Reports an error in one line and exits. If several ranks have the same error, one reports it.

    From here on the rank ignores a launcher that ends all ranks with the first, so each exits with its own code.
    """
    stopper.closed, rank = True, distributed.rank()
    time.sleep(RANK_ZERO_FIRST if rank else 0)
    text = one_line(error)
    if first_to_say(text):
        print(f"{stopper.program}: error: {f'rank {rank}: ' if rank else ''}{text}", file=sys.stderr, flush=True)
    raise SystemExit(code)
