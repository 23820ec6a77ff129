"""What a command prints reaches its stream, whatever the encoding."""

import io
import sys


def escape_the_unprintable() -> None:
    """Have stdout and stderr escape what they cannot encode, such as names of files that are not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
