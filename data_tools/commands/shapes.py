"""`vtok-shards shapes` and `shapes-items`."""

import argparse
from pathlib import Path

from data_tools.items import write_items
from data_tools.shapes.scene import SPLITS


def register(commands: argparse._SubParsersAction) -> None:
    """Add the commands to a parser."""
    shapes = commands.add_parser("shapes", help="render captioned clips of moving shapes")
    shapes.add_argument("--output", required=True, metavar="DIR", help="folder for the clips")
    shapes.add_argument("--clips", required=True, type=int, metavar="N", help="number of clips")
    shapes.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")
    shapes.add_argument("--split", choices=SPLITS, default="all", help="test: only combinations that train lacks")
    shapes.set_defaults(run=_shapes)

    items = commands.add_parser("shapes-items", help="write questions about shapes, and prompts to generate videos")
    items.add_argument("--output", required=True, type=Path, metavar="FILE", help="JSONL to write")
    items.add_argument("--per-category", type=int, default=120, metavar="N", help="default: %(default)s")
    items.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")
    items.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    items.set_defaults(run=_shapes_items)


def _shapes(arguments: argparse.Namespace) -> None:
    from data_tools.shapes import render_clips  # only now: this imports PyAV

    render_clips(arguments.output, arguments.clips, arguments.seed, split=arguments.split)
    print(f"rendered {arguments.clips} clips at {arguments.output}")


def _shapes_items(arguments: argparse.Namespace) -> None:
    from data_tools.shapes import scene_items

    items = scene_items(arguments.per_category, arguments.seed, arguments.split)
    write_items(items, arguments.output)
    print(f"wrote {len(items)} items to {arguments.output}")
