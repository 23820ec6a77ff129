"""DeepSpeed's operators for CPUs, which are compiled at first use: what a machine lacks is one line."""

import os
import shutil
import subprocess
import sys
import time

import deepspeed
import pytest
import torch

from pipelines.config import TrainConfig
from pipelines.engine import cpu_op, internals
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.setup import build_engine, deepspeed_config
from support.launch import REPO
from vtok.config import ConfigError


def test_a_missing_compiler_is_said_clearly(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler .*on a CPU"):
        cpu_op.prepare(cpu_op.COLLECTIVES)
    offload, plan = REPO / "deepspeed_configs/zero3_offload.json", plan_batch(16, 1, 1)
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler .*for offload_optimizer; try"):
        deepspeed_config(offload, TrainConfig(max_steps=1), plan)  # also on a GPU, and before anything is loaded
    monkeypatch.setitem(internals.installed_ops, cpu_op.ADAM, True)  # compiled when DeepSpeed was installed
    deepspeed_config(offload, TrainConfig(max_steps=1), plan)


def test_a_build_finds_the_programs_beside_the_interpreter(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for _ in range(2):
        cpu_op.prepare(cpu_op.COLLECTIVES)
        assert os.environ["PATH"].split(":") == ["/usr/bin", "/bin", os.path.dirname(sys.executable)]
    assert shutil.which("ninja")  # an interpreter's own, or the machine's


@pytest.mark.parametrize(
    "error, reason",
    [
        (ImportError("shm.so: cannot open shared object file\nmore"), "shm.so: cannot open shared object file"),
        (
            RuntimeError("Error building:\n[1/3] c++\n shm.cpp:1:9: fatal error: x.h: No such file\n"),
            "shm.cpp:1:9: fatal",
        ),
    ],
)
def test_collectives_that_cannot_be_compiled_are_one_line(error, reason, monkeypatch):
    def fail():
        raise error from subprocess.CalledProcessError(1, "ninja") if isinstance(error, RuntimeError) else None

    monkeypatch.setattr(cpu_op, "build_shm_op", fail)
    with pytest.raises(ConfigError) as refused:
        cpu_op.build_collectives()
    told = str(refused.value)
    assert told.startswith(f"DeepSpeed cannot compile its deepspeed_shm_comm, which it needs on a CPU ({reason}")
    assert told.endswith("): install what it lacks") and "\n" not in told


def test_an_adamw_for_the_host_that_cannot_be_compiled_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("which failed to build/load.") from RuntimeError("ninja is missing\nand much more")

    monkeypatch.setattr(deepspeed.ops.adam, "DeepSpeedCPUAdam", fail)
    config = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}}
    with pytest.raises(
        ConfigError, match=r"offload_optimizer.*\(ninja is missing\): install what it lacks, or use"
    ) as raised:
        build_engine(torch.nn.Linear(2, 2), config, TrainConfig(max_steps=1))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("operator", [cpu_op.COLLECTIVES, cpu_op.ADAM])
def test_a_killed_build_s_lock_is_removed_and_a_running_one_s_told_of(operator, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock = tmp_path / operator / "lock"
    lock.parent.mkdir()
    lock.touch()
    cpu_op.forget_killed_builds(operator)
    assert lock.exists() and str(lock) in capsys.readouterr().err
    os.utime(lock, (time.time() - 3600,) * 2)
    cpu_op.forget_killed_builds(operator)
    assert not lock.exists() and not capsys.readouterr().err
