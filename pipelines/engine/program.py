"""What is around every training run: requests to stop, one line on what the user can mend, exit codes."""

import os
from collections.abc import Callable

from data_tools.errors import DataError
from pipelines.cli.errors import die
from pipelines.cli.parsing import Config, RunArguments
from pipelines.engine import distributed
from pipelines.engine.loading.workers import LoaderError
from pipelines.engine.run_control import STOPPED, Stopper, end_children, leave
from vtok.config import ConfigError


def run_program(
    name: str, arguments: RunArguments[Config], train: Callable[[RunArguments[Config], Stopper], bool]
) -> None:
    """A training command, from its arguments to its exit code.

    A process without a launcher is left as it was found: it may be a program of the caller's, which goes on.

    Exit codes: 0 finished; 75 saved and stopped early; 2 one line on what the user can mend; 1 another rank was lost.

    Args:
        name: of the command, before what it says.
        arguments: of the run.
        train: a whole run; returns whether it came to its end.
    """
    stopper = Stopper(name)
    try:
        with distributed.connected():
            finished = train(arguments, stopper)
    except (ConfigError, DataError) as error:
        die(name, error, 0 if isinstance(error, LoaderError) else distributed.rank())
    except RuntimeError as error:
        if not distributed.is_lost_peer(error):
            raise
        stopper.end_without_peer(error)
    finally:
        stopper.closed = True
        end_children()
        if not distributed.is_launched(os.environ):
            stopper.dismiss()
    if not finished:
        leave(STOPPED)
