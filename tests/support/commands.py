"""Our commands called in this process: ``main(argv)``, as from a program of a user's."""

import io
import os
import random
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import numpy
import torch
import transformers

Main = Callable[[list[str]], None]


def called(main: Main, *arguments) -> subprocess.CompletedProcess:
    """Call a command: its end is an exit code, what it prints is text; other exceptions are the caller's."""
    words, code = list(map(str, arguments)), 0
    out, err = io.StringIO(), io.StringIO()
    with random_numbers_kept(), settings_kept(), redirect_stdout(out), redirect_stderr(err):
        try:
            main(words)
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Afterwards Python, numpy and torch draw as if nothing had been drawn within."""
    states = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(states[0])
    numpy.random.set_state(states[1])


@contextmanager
def settings_kept() -> Iterator[None]:
    """What a training command sets for its whole process: determinism, threads, how much is warned of."""
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    benchmark, verbosity = torch.backends.cudnn.benchmark, transformers.logging.get_verbosity()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
        transformers.logging.set_verbosity(verbosity)


@contextmanager
def environment_of(wanted: Mapping[str, str]) -> Iterator[None]:
    """Within, the environment is this one."""
    found = dict(os.environ)
    try:
        replace_environment(wanted)
        yield
    finally:
        replace_environment(found)


def replace_environment(wanted: Mapping[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)
