"""A run, and a micro-step of every kind of model, on a device that is not the CPU: do tensors mix, does the host wait?

The device is simulated (``support/tagged_device.py``), the models are tiny ones with the published models' code. One
process does it all, on the device and on the CPU (``support/tagged_worker.py``).

Real: reading weights to the device, calibration, ``train_step`` with forward and backward, torch's fused AdamW, the
average, writing and reading checkpoints, validation with a caption and a video.
Stand-ins: DeepSpeed's engine (``support/tagged_engine.py``), and random clips in the place of shards and loader.
"""

import json
import warnings
from collections import Counter

import pytest
import torch

from support.launch import REPO, checked, python
from support.tensor_uses import PAGEABLE, REFUSED, WAITING, uses
from support.tiny import CAPTIONS
from vtok.assembly.tiny import write_tiny_models

STATIONS = (
    "build", "calibrate", "first step", "average", "save", "validate", "second step", "resume", "second step, resumed",
)  # fmt: skip
VARIANTS = (
    "gmm", "bf16", "mse", "flow", "codes", "residual grid", "frames", "none", "training_free",
    "detected key frame", "stored", "wan", "wan_experts", "qwen2.5-vl",
)  # fmt: skip
USES = ("use gmm", "use mse", "use flow", "use codes", "use wan", "use qwen2.5-vl")

# The most waits of a micro-step: transformers reads the mask of Wan's text encoder. Whatever else follows from lengths
# and seeds is copied without waiting (``vtok/devices.py``).
MOST_WAITS = {name: int(name.startswith("wan")) for name in VARIANTS}
# A detector looks at pixels on the device: the host must know which frame it chose, clip by clip.
READS = {"detected key frame": 4}
# At the end of a step, for the log: the losses, and the norm of the gradients.
READS_OF_A_STEP = 2


@pytest.fixture(scope="module")
def seen(tiny_models, tmp_path_factory) -> dict:
    """What the worker tells."""
    folder = tmp_path_factory.mktemp("tagged")
    write_tiny_models(folder, CAPTIONS, mllm="qwen2.5-vl")
    worker = REPO / "tests/support/tagged_worker.py"
    result = checked(python(worker, tiny_models, folder, folder, timeout=900))
    return json.loads(result.stdout.splitlines()[-1])


def figures(station: dict) -> dict:
    return {name: value for name, value in station.items() if isinstance(value, (int, float))}


@pytest.mark.slow
@pytest.mark.parametrize("name", STATIONS + VARIANTS + USES)
def test_nothing_mixes_devices_and_the_figures_are_the_cpus(seen, name):
    on_device, on_cpu = seen["device"][name], seen["cpu"][name]
    assert on_device["mixtures"] == []
    assert figures(on_device) == pytest.approx(figures(on_cpu), rel=2e-3 if name == "bf16" else 1e-5)
    assert on_device.get("caption") == on_cpu.get("caption")


@pytest.mark.slow
def test_a_resumed_run_takes_the_same_step(seen):
    assert figures(seen["device"]["second step, resumed"]) == figures(seen["device"]["second step"])


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_the_waits_of_a_micro_step_do_not_grow(seen, name):
    waits = Counter(seen["device"][name]["waits"])
    assert waits.total() <= MOST_WAITS[name] + READS.get(name, 0), waits


@pytest.mark.slow
def test_the_waits_of_a_step_do_not_grow(seen):
    waits = Counter(seen["device"]["second step"]["waits"])
    assert waits.total() <= MOST_WAITS["gmm"] + READS_OF_A_STEP, waits


@pytest.mark.slow
def test_bugs_are_found_with_their_place(seen):
    """A forgotten move in a forward pass, one in a backward pass only, and AdamW's step on the host after a resume."""
    bugs = {name: bug["mixtures"] for name, bug in seen["bugs"].items()}
    (forgotten, *_) = bugs["forgotten move"]
    assert "tagged_worker.py" in forgotten and "forgotten_move: aten.mul.Tensor: other (64,) lies on cpu" in forgotten
    (backward, *_) = bugs["forgotten move, backward"]
    assert "forgotten_move: aten.mul.Tensor of ForgottenMoveBackward: other (64,) lies on cpu" in backward
    assert bugs["step on the host"]
    for mixture in bugs["step on the host"]:
        assert "pipelines/engine/stepping.py" in mixture and "aten._fused_adamw_" in mixture, mixture
        assert "state_steps () lies on cpu" in mixture


@pytest.mark.slow
def test_the_rules_are_those_that_are_written_down(seen):
    assert set(seen["rules"]["refused"]) == REFUSED
    assert seen["rules"]["waiting"] == WAITING


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_refuses_and_waits_as_is_written_down():
    """But for copies from memory that is not pinned: whether these wait is the driver's business."""
    refused, waiting = set(), set()
    for name, use in uses(torch.device("cuda", 0)).items():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                use()
            except RuntimeError:
                refused.add(name)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        if any("synchroniz" in str(warning.message) for warning in said):
            waiting.add(name)
    assert refused == REFUSED
    assert waiting - refused == set(WAITING) - {PAGEABLE}
