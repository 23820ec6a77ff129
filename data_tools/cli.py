"""`vtok-shards`: build a dataset of shards, look into it, or render clips to try it on.

vtok-shards shapes --output clips --clips 200
vtok-shards build clips --output shards
vtok-shards verify shards --decode
"""

import argparse
import sys

from . import inspect_commands
from .build import build_shards
from .errors import DataError
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

    build = commands.add_parser("build", help="check clips and pack them into shards")
    build.add_argument("input", metavar="INPUT", help="folder with captions.csv, or with NAME/frames folders")
    build.add_argument("--output", required=True, metavar="DIR", help="folder for the dataset")
    build.add_argument("--samples-per-shard", type=int, default=1000, metavar="N", help="default: %(default)s")
    build.set_defaults(run=_build)

    shapes = commands.add_parser("shapes", help="render captioned clips of moving shapes")
    shapes.add_argument("--output", required=True, metavar="DIR", help="folder for the clips")
    shapes.add_argument("--clips", required=True, type=int, metavar="N", help="number of clips")
    shapes.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")
    shapes.set_defaults(run=_shapes)

    inspect_commands.register(commands)
    return parser


def _build(arguments: argparse.Namespace) -> None:
    done = build_shards(arguments.input, arguments.output, arguments.samples_per_shard)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(done.reasons.items()))
    print(
        f"packed {done.packed} clips into {done.shards} shards ({done.bytes / 1e6:.1f} MB) at {arguments.output}; "
        f"rejected {done.rejected}" + (f" ({reasons})" if reasons else "")
    )


def _shapes(arguments: argparse.Namespace) -> None:
    render_clips(arguments.output, arguments.clips, arguments.seed)
    print(f"rendered {arguments.clips} clips at {arguments.output}")


if __name__ == "__main__":
    sys.exit(main())
