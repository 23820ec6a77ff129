"""Which GPU a rank takes, and that DeepSpeed takes the same one; without a GPU."""

import deepspeed
import pytest
import torch
from deepspeed.accelerator.cuda_accelerator import CUDA_Accelerator

from pipelines.engine import allocator, distributed


@pytest.fixture
def machine(monkeypatch):
    """A function that sets up what a rank sees, and the list of what ``connect`` does, in order."""
    done = []
    for name in (*allocator.ENVIRONMENT, "OMPI_COMM_WORLD_LOCAL_RANK", "LOCAL_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", lambda text: done.append(text), raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(torch.device(device)))
    monkeypatch.setattr(distributed.cpu_op, "unname_shared_buffers", lambda rank: None)

    def join(timeout, **options):
        assert timeout == distributed.ALONE_TIMEOUT  # for work of rank 0 alone, though all ranks must come in minutes
        # As zero.Init, the engine and stage 3's broadcasts make a device of it in DeepSpeed 0.19.8.
        done.append(torch.device(CUDA_Accelerator().device_name(distributed.os.environ["LOCAL_RANK"])))

    monkeypatch.setattr(deepspeed, "init_distributed", join)
    monkeypatch.setattr(distributed, "meet", lambda: None)

    def seen(gpus: int, **environment: str) -> list:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        launched = {"RANK": "11", "WORLD_SIZE": "16", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
        for name, value in (launched | {"TORCH_FR_BUFFER_SIZE": "9"} | environment).items():
            monkeypatch.setenv(name, value)
        return done

    return seen


@pytest.mark.parametrize("gpus, local_rank, index", [(1, 3, 0), (8, 3, 3), (4, 0, 0)])
def test_deepspeed_takes_the_gpu_that_this_rank_takes(machine, gpus, local_rank, index):
    done = machine(gpus, LOCAL_RANK=str(local_rank), SLURM_NTASKS_PER_NODE="8")
    distributed.connect()
    chosen = torch.device("cuda", index)
    assert done == ["expandable_segments:True", chosen, chosen]
    assert distributed.device() == chosen  # afterwards too
    assert distributed.ranks_here() == 8 and distributed.rank() == 11


def test_the_two_names_of_the_local_rank_stay_equal(machine):
    """Else DeepSpeed's engine refuses."""
    machine(1, LOCAL_RANK="3", OMPI_COMM_WORLD_LOCAL_RANK="3")
    distributed.connect()
    assert {distributed.os.environ[name] for name in ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")} == {"0"}


@pytest.mark.parametrize("name", allocator.ENVIRONMENT)
def test_the_user_s_allocator_stays_as_it_is(machine, name):
    done = machine(1, **{"LOCAL_RANK": "0", name: "max_split_size_mb:512"})
    distributed.connect()
    assert done == [torch.device("cuda", 0)] * 2


def test_torch_takes_the_allocator_s_setting(monkeypatch):
    """By its own account, in this build."""
    for name in allocator.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    before = torch._C._accelerator_getAllocatorSettings()
    allocator.let_segments_grow()
    assert torch._C._accelerator_getAllocatorSettings() == before  # there is no GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    try:
        allocator.let_segments_grow()
        assert torch._C._accelerator_getAllocatorSettings() == "expandable_segments:True"
    finally:
        torch._C._accelerator_setAllocatorSettings(before)
