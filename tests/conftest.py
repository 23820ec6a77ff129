import os
import signal
import threading

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of threads, with which one must not fork

import pytest
import torch

from pipelines.engine.loading.workers import STOP_SIGNALS
from support.ranks import Ranks
from support.tiny import CAPTIONS, model_config
from support.wan import write_heeding_models
from vtok.assembly.build import build_framework
from vtok.assembly.tiny import write_tiny_models

# A shell that starts pytest in the background has it ignored, by all that the tests start too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """Folder with tiny random ``llava``, ``clip`` and ``hunyuan``."""
    folder = tmp_path_factory.mktemp("tiny_models")
    write_tiny_models(folder, CAPTIONS)
    return folder


@pytest.fixture(scope="session")
def heeding_models(tiny_models, tmp_path_factory):
    """The tiny models, with Wans that heed their text."""
    return write_heeding_models(tiny_models, tmp_path_factory.mktemp("heeding") / "models")


@pytest.fixture
def framework(tiny_models):
    """A fresh tiny framework in training mode, fp32."""
    torch.manual_seed(0)
    return build_framework(model_config(tiny_models)).train()


@pytest.fixture(scope="session")
def ranks():
    """Two processes that run commands and scripts as ranks."""
    ranks = Ranks()
    yield ranks
    ranks.close()


@pytest.fixture(autouse=True)
def process_left_as_found():
    """No test, and no command that it calls, leaves other tests what it has set up for the whole process."""
    before = settings()
    yield
    assert settings() == before
    assert torch.nn.functional.linear is torch._C._nn.linear  # in whose place DeepSpeed's ZeRO-3 sets its own


def settings() -> dict:
    return {
        # decord adds its folder to PATH when it is imported.
        "environment": {
            name: value for name, value in os.environ.items() if name not in ("PYTEST_CURRENT_TEST", "PATH")
        },
        "signals": [signal.getsignal(number) for number in STOP_SIGNALS],
        "listeners": [thread.name for thread in threading.enumerate() if thread.name == "stop requests"],
        "process group": torch.distributed.is_initialized(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "folder": os.getcwd(),
    }
