"""How a training command ends on an error: one line, by one rank, exit code 2 or 74."""

import errno
import io
import socket
from signal import SIGKILL
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from safetensors import SafetensorError

from data_tools.errors import DataError
from data_tools.processes.child import FORK
from pipelines.cli.parsing import parse_run_arguments
from pipelines.engine import program
from pipelines.engine.distributed import meets_nobody, port_in_use_told
from pipelines.engine.saving.persistent import Unsaved
from support.ends import sleep_for_ever
from vtok.config import ConfigError


@pytest.fixture
def ended(monkeypatch, capsys):
    """Runs a program whose training raises an error, on a rank; returns what it says."""
    stopper = SimpleNamespace(closed=False, program="vtok-train")
    monkeypatch.setattr(program, "Stopper", lambda name: stopper)
    monkeypatch.setattr(program.distributed, "connect", lambda: None)
    monkeypatch.setattr(program, "end_children", lambda keep: None)
    monkeypatch.setattr(program, "RANK_ZERO_FIRST", 0)
    said = set()

    def first_to_say(text: str) -> bool:
        assert stopper.closed  # srun may end this rank from now on
        return text not in said and not said.add(text)

    monkeypatch.setattr(program, "first_to_say", first_to_say)

    def end(error: Exception, rank: int = 0, begun: bool = False, expected: int = 2) -> str:
        stopper.begun, stopper.closed = begun, False
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")

        def train(arguments, stopper):
            raise error

        with pytest.raises(SystemExit) as code:
            program.run_program("vtok-train", None, train)
        assert code.value.code == expected
        return capsys.readouterr().err

    return end


def test_an_error_of_one_rank_names_it_and_one_of_all_is_said_once(ended):
    assert ended(DataError("clip x\nis bad"), rank=1) == "vtok-train: error: rank 1: clip x is bad\n"
    assert ended(ConfigError("set lr"), rank=0) == "vtok-train: error: set lr\n"
    assert ended(ConfigError("set lr"), rank=1) == ""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "log.jsonl"),
        PermissionError(errno.EACCES, "Permission denied", "log.jsonl"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_what_a_disk_does_is_one_line_and_after_the_first_step_another_start_may_succeed(ended, error):
    (line,) = ended(error).splitlines()
    assert line.startswith("vtok-train: error: ") and ("log.jsonl" in line or "No space left" in line)
    assert ended(error, rank=1, begun=True, expected=74) == ""  # rank 0 has said it


def test_checkpoints_that_no_disk_takes_end_with_a_code_that_is_queued_again(ended):
    assert ended(Unsaved("no room"), begun=True, expected=74) == "vtok-train: error: no room\n"
    assert ended(ConfigError("set lr"), begun=True) == "vtok-train: error: set lr\n"


def test_no_memory_for_the_first_step_is_one_line_and_later_an_error_of_ours(ended):
    error = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
    (line,) = ended(error).splitlines()
    assert "out of memory" in line and "lower train.micro_batch_size" in line
    with pytest.raises(RuntimeError, match="can't allocate"):
        ended(error, begun=True)


def test_a_job_s_output_on_a_full_disk_ends_no_run(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdout", Full())
    monkeypatch.setattr("sys.stderr", Full())
    program.run_program("vtok-train", None, lambda arguments, stopper: print("step 1", flush=True) is None)
    with pytest.raises(SystemExit, match="2"):
        program.run_program("vtok-train", None, lambda arguments, stopper: parse_run_arguments(["--train.lr", "0"]))
    with pytest.raises(OSError, match="No space"):
        print("after the run")


def test_an_error_of_ours_keeps_its_traceback(ended):
    for error in (OSError("no number"), SafetensorError("no such tensor"), KeyError("x")):
        with pytest.raises(type(error)):
            ended(error)


def test_a_port_in_use_is_one_line(monkeypatch):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("MASTER_PORT", str(port))
        with pytest.raises(ConfigError, match=f"port {port} of this machine is in use"), port_in_use_told():
            dist.TCPStore("127.0.0.1", port, 1, True)


def test_a_rank_alone_needs_no_port_of_the_launcher_unless_torchrun_listens_there():
    alone = {"RANK": "0", "WORLD_SIZE": "1"}
    assert meets_nobody(alone)
    assert not meets_nobody(alone | {"WORLD_SIZE": "2"})
    assert not meets_nobody(alone | {"TORCHELASTIC_USE_AGENT_STORE": "True"})


def test_a_run_ends_its_own_children_and_not_the_calling_program_s():
    own = FORK.Process(target=sleep_for_ever)
    other = FORK.Process(target=sleep_for_ever)
    other.start()
    try:
        program.run_program("vtok-train", None, lambda arguments, stopper: own.start() or True)
        own.join(20)
        assert own.exitcode == -SIGKILL and other.is_alive()
    finally:
        other.kill()
        other.join()
