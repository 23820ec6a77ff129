"""How a command tells its user what to mend."""

import sys


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def die(program: str, error: BaseException, rank: int = 0) -> None:
    """End with exit code 2 and one line; the other ranks end silently."""
    if rank == 0:
        print(f"{program}: error: {one_line(error)}", file=sys.stderr)
    raise SystemExit(2)
