"""`vtok-shards`: build a dataset of shards, look into it, or render clips to try it on.

vtok-shards shapes --output clips --clips 200
vtok-shards build clips --output shards
vtok-shards verify shards --decode
"""

import argparse
import sys

from .build import command as build_command
from .errors import DataError
from .inspect import command as inspect_commands
from .shapes import render_clips


def main(argv: list[str] | None = None) -> int:
    """Run one command: 0, 1 where `verify` finds faults, 2 with one line on stderr where the input is unusable."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except (DataError, OSError) as error:
        print(f"vtok-shards: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vtok-shards", description="Datasets of captioned clips for vtok.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build_command.register(commands)

    shapes = commands.add_parser("shapes", help="render captioned clips of moving shapes")
    shapes.add_argument("--output", required=True, metavar="DIR", help="folder for the clips")
    shapes.add_argument("--clips", required=True, type=int, metavar="N", help="number of clips")
    shapes.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")
    shapes.set_defaults(run=_shapes)

    inspect_commands.register(commands)
    return parser


def _shapes(arguments: argparse.Namespace) -> None:
    render_clips(arguments.output, arguments.clips, arguments.seed)
    print(f"rendered {arguments.clips} clips at {arguments.output}")


if __name__ == "__main__":
    sys.exit(main())
