"""Host memory for checkpoints: how much is taken, when, and what is said where there is not enough."""

import gc
import mmap
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine import host_memory
from pipelines.engine.saving import host_buffers
from pipelines.engine.saving.host_buffers import pinned_bytes, take
from pipelines.engine.saving.writing import host_copies
from vtok.config import ConfigError


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=8))
def test_buffers_take_their_elements_and_less_than_a_page_more_each(sizes):
    assert 0 <= pinned_bytes(sizes) - 4 * sum(sizes) < mmap.PAGESIZE * len(sizes)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=5))
def test_buffers_have_the_sizes_asked_for_and_memory_of_their_own(sizes):
    buffers = take(sizes, pin=False)
    assert [(len(buffer), buffer.dtype) for buffer in buffers] == [(size, torch.float32) for size in sizes]
    for number, buffer in enumerate(buffers):
        buffer.fill_(number)
    assert all((buffer == number).all() for number, buffer in enumerate(buffers))


def flags_of_mapping(address: int) -> list[str]:
    """What the kernel notes of the mapping that holds an address."""
    inside = False
    for line in open("/proc/self/smaps"):
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            start, end = (int(bound, 16) for bound in first.split("-"))
            inside = start <= address < end
        elif inside and first == "VmFlags:":
            return rest
    raise AssertionError(f"no mapping holds {address:x}")


def test_forked_processes_do_not_get_the_buffers():
    (buffer,) = take([100_000], pin=False)
    assert "dc" in flags_of_mapping(buffer.data_ptr())  # "do not copy area on fork"


def test_all_buffers_are_pinned_at_once_with_nothing_lost_and_until_they_go(monkeypatch):
    pinned, unpinned = [], []
    cudart = SimpleNamespace(
        cudaHostRegister=lambda address, size, flags: pinned.append((address, size)) or 0,
        cudaHostUnregister=unpinned.append,
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart)
    buffers = take([1500, 10], pin=True)
    assert pinned == [(buffers[0].data_ptr(), 3 * mmap.PAGESIZE)] and pinned_bytes([1500, 10]) == 3 * mmap.PAGESIZE
    del buffers[0]
    gc.collect()
    assert not unpinned
    del buffers
    gc.collect()
    assert unpinned == [pinned[0][0]]


def test_one_line_where_cuda_cannot_pin(monkeypatch):
    monkeypatch.setattr(torch.cuda, "cudart", lambda: SimpleNamespace(cudaHostRegister=lambda *_: 2))
    with pytest.raises(ConfigError, match=r"cannot pin 0.0 GB .*CUDA error 2.*free host memory"):
        take([10], pin=True)


def test_one_line_where_the_system_refuses():
    with pytest.raises(ConfigError, match="cannot take 400000000.0 GB of host memory"):
        take([10**17], pin=False)


def test_one_line_before_memory_is_taken_that_a_machine_does_not_have(monkeypatch):
    """A rank's eighth of an 8B model, its moments and average, on a machine of eight ranks."""
    monkeypatch.setattr(host_memory, "available", lambda: 100 * 10**9)
    monkeypatch.setattr(host_buffers, "take", lambda *_, **__: pytest.fail("taken all the same"))
    monkeypatch.setenv("LOCAL_SIZE", "8")
    flats = [torch.empty(10**9, device="meta")]
    with pytest.raises(ConfigError, match=r"8 x 16.0 GB on this machine, of which 100.0 GB are available: use more"):
        host_copies(flats, ("weights", "exp_avg", "exp_avg_sq", "ema"))


def test_copies_are_laid_out_like_the_masters():
    flats = [torch.empty(5), torch.empty(3)]
    copies = host_copies(flats, ("weights", "ema"))
    assert {kind: [len(copy) for copy in both] for kind, both in copies.items()} == {"weights": [5, 3], "ema": [5, 3]}


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_every_control_group_around_this_process_count(tmp_path, version):
    top = tmp_path / "memory" if version == 1 else tmp_path
    names = host_memory.VERSION_1 if version == 1 else host_memory.VERSION_2
    for path, limit, used in (("job", "1000", 700), ("job/task", "max" if version == 2 else str(2**62), 400)):
        group = top / path
        group.mkdir(parents=True)
        for name, value in zip(names, (limit, used)):
            (group / name).write_text(f"{value}\n")
        (group / "memory.stat").write_text(f"anon 1\n{names[2]} 50\n")
    own = tmp_path / "own"
    own.write_text("3:cpuset:/\n" + ("4:memory:/job/task\n" if version == 1 else "0::/job/task\n"))
    assert min(host_memory.limits_left(tmp_path, own)) == 350
    own.write_text("4:memory:/not/mounted/here\n" if version == 1 else "0::/not/mounted/here\n")
    assert list(host_memory.limits_left(tmp_path, own)) == []


def test_some_memory_is_available_here():
    assert 10**6 < host_memory.available() < 10**14
