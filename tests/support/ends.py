"""Ways for a process to end badly, and to see that it has."""

import faulthandler
import os
import signal
import time


def abort():
    faulthandler.disable()  # pytest's would fill the screen
    os.abort()


def kill_myself():
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_for_ever():
    time.sleep(1000)


def spin_for_ever():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})
    while True:
        pass


def leave():
    os._exit(0)


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
