import os
import signal

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from support.tiny import CAPTIONS, model_config
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


@pytest.fixture
def framework(tiny_models):
    """A fresh tiny framework in training mode, fp32."""
    torch.manual_seed(0)
    return build_framework(model_config(tiny_models)).train()
