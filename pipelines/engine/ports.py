"""A free port of this machine, for the store of a run's process group."""

import random
import socket

PORTS = range(20_000, 32_000)  # below those that the kernel gives to outgoing connections


def free_port() -> int:
    """Returns a port on which nobody listens. No outgoing connection takes it before its server binds it."""
    draws = random.SystemRandom()  # a seeded run draws the same numbers with and without this
    while True:
        port = draws.choice(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):  # nobody answers
                return port
