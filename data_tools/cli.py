"""`vtok-shards`: build a dataset of shards, inspect it, or render clips to try it with.

vtok-shards shapes --output clips --clips 200
vtok-shards build clips --output shards
vtok-shards verify shards --decode
"""

import argparse
import sys
from pathlib import Path

from data_tools.errors import DataError
from data_tools.inspect import command as inspect_commands
from data_tools.items import write_items
from data_tools.packing import command as build_command
from data_tools.shapes import SPLITS, render_clips, scene_items


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0; 1 if `verify` finds faults; 2, after one line on stderr, if the input cannot be used.
    """
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
    shapes.add_argument("--split", choices=SPLITS, default="all", help="test: only combinations that train lacks")
    shapes.set_defaults(run=_shapes)

    items = commands.add_parser("shapes-items", help="write questions about shapes, and prompts to generate videos")
    items.add_argument("--output", required=True, type=Path, metavar="FILE", help="JSONL to write")
    items.add_argument("--per-category", type=int, default=143, metavar="N", help="default: %(default)s")
    items.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")
    items.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    items.set_defaults(run=_shapes_items)

    inspect_commands.register(commands)
    return parser


def _shapes(arguments: argparse.Namespace) -> None:
    render_clips(arguments.output, arguments.clips, arguments.seed, split=arguments.split)
    print(f"rendered {arguments.clips} clips at {arguments.output}")


def _shapes_items(arguments: argparse.Namespace) -> None:
    items = scene_items(arguments.per_category, arguments.seed, arguments.split)
    write_items(items, arguments.output)
    print(f"wrote {len(items)} items to {arguments.output}")


if __name__ == "__main__":
    sys.exit(main())
