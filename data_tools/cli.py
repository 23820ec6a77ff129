"""`vtok-shards`: build a dataset of shards, or render clips to try it on.

vtok-shards shapes --output clips --clips 200
vtok-shards build clips --output shards
"""

import argparse
import sys

from . import build_command
from .errors import DataError
from .shapes import render_clips


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0, or 2 with one line on stderr where the input is at fault."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (DataError, OSError) as error:
        print(f"vtok-shards: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vtok-shards", description="Datasets of captioned clips for vtok.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build_command.register(commands)

    shapes = commands.add_parser("shapes", help="render captioned clips of moving shapes")
    shapes.add_argument("--output", required=True, metavar="DIR", help="folder for the clips")
    shapes.add_argument("--clips", required=True, type=int, metavar="N", help="number of clips")
    shapes.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")
    shapes.set_defaults(run=_shapes)
    return parser


def _shapes(arguments: argparse.Namespace) -> None:
    render_clips(arguments.output, arguments.clips, arguments.seed)
    print(f"rendered {arguments.clips} clips at {arguments.output}")


if __name__ == "__main__":
    sys.exit(main())
