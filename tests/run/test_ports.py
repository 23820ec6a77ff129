"""Ports for the store of a process group."""

import socket
from pathlib import Path

from pipelines.engine import ports


def test_a_port_on_which_somebody_listens_is_not_free(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(ports, "PORTS", (taken, taken + 1, taken + 2))
        assert {ports.free_port() for _ in range(30)} <= {taken + 1, taken + 2}


def test_outgoing_connections_are_given_no_such_port():
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports.PORTS) < lowest
