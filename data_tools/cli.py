"""`vtok-shards`: build a dataset of shards, inspect it, or render clips to try it with.

vtok-shards shapes --output clips --clips 200
vtok-shards build clips --output shards
vtok-shards verify shards --decode
"""

import argparse
import sys

from data_tools.commands import build, inspect, shapes
from data_tools.errors import DataError
from data_tools.printing import escape_the_unprintable


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0; 1 if `verify` finds faults; 2, after one line on stderr, if the input cannot be used.
    """
    escape_the_unprintable()
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except (DataError, OSError) as error:
        print(f"vtok-shards: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vtok-shards", description="Datasets of captioned clips for vtok.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build.register(commands)
    shapes.register(commands)
    inspect.register(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
