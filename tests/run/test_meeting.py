"""All ranks come within minutes, or one line says where they were waited for and which are missing."""

import subprocess
import sys

import pytest

from pipelines.engine import meeting
from pipelines.engine.ports import free_port
from support.launch import environment
from vtok.config import ConfigError

MEET = """
from pipelines.engine import meeting

meeting.meet()
print("met")
"""


@pytest.fixture
def as_rank(monkeypatch):
    """Makes this process a rank of three, which loses patience soon; returns where the ranks meet."""

    def become(rank: int) -> str:
        port = str(free_port())
        launched = {"RANK": str(rank), "WORLD_SIZE": "3", "LOCAL_RANK": str(rank)}
        for name, value in (launched | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}).items():
            monkeypatch.setenv(name, value)
        return f"127.0.0.1:{port}"

    monkeypatch.setattr(meeting, "PATIENCE", 1.0)
    monkeypatch.setattr(meeting, "NOTICE", 0.5)
    return become


def test_ranks_that_do_not_come_are_named_in_minutes(as_rank, capfd):
    address = as_rank(0)
    with pytest.raises(ConfigError, match=rf"^1 of 3 ranks came to {address} in 1 s, without rank 1 and 1 more: see"):
        meeting.meet()
    assert capfd.readouterr().err == f"waiting for the other ranks at {address}\n"


@pytest.mark.parametrize("rank, said", [(0, True), (1, False)])
def test_a_missing_store_is_named(rank, said, as_rank, monkeypatch, capfd):
    """One rank of each machine says that it waits."""
    address = as_rank(rank)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(ConfigError, match=f"^nobody answers at {address} since 1 s: see why rank 0 did not start"):
        meeting.meet()
    assert capfd.readouterr().err == (f"waiting for the other ranks at {address}\n" if said else "")


def test_ranks_meet_however_late_one_comes(as_rank, monkeypatch):
    """Rank 0 comes last."""
    as_rank(0)
    others = [
        subprocess.Popen(
            [sys.executable, "-c", MEET], env=environment(RANK=str(rank)), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in (1, 2)
    ]  # fmt: skip
    monkeypatch.setattr(meeting, "PATIENCE", 100.0)
    store = meeting.meet()
    assert [other.communicate(timeout=60) for other in others] == [("met\n", "")] * 2
    assert store.check(["came/0/all"])


def test_a_rank_that_waits_is_told_of_the_end_of_the_store(as_rank, monkeypatch):
    as_rank(0)
    monkeypatch.setattr(meeting, "PATIENCE", 20.0)
    kept = [meeting.store_of(0, "here")]
    other = subprocess.Popen([sys.executable, "-c", MEET], env=environment(RANK="1"), text=True, stderr=subprocess.PIPE)
    assert meeting.comes(lambda: kept[0].check(["came/0/1"]), "here", says=False)
    kept.clear()
    assert "ConfigError: the process that kept the store at 127.0.0.1:" in other.communicate(timeout=60)[1]
