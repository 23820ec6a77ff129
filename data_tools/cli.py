"""`vtok-shards`: build a dataset of shards, look into it, or render clips to try it on.

vtok-shards shapes --output clips --clips 200
vtok-shards build clips --output shards
vtok-shards verify shards --decode
"""

import argparse
import json
import sys

from .build import build_shards
from .errors import DataError
from .index import index_shards
from .shapes import render_clips
from .show import write_report
from .stats import dataset_stats, stats_table
from .verify import verify_shards


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0, 1 where `verify` finds a fault, or 2 with one line on stderr where the input is at fault."""
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

    _add_index(commands)
    _add_verify(commands)
    _add_stats(commands)
    _add_show(commands)
    return parser


def _build(arguments: argparse.Namespace) -> None:
    done = build_shards(arguments.input, arguments.output, arguments.samples_per_shard)
    print(
        f"packed {done.packed} clips into {done.shards} shards ({done.bytes / 1e6:.1f} MB) at {arguments.output}; "
        f"rejected {done.rejected}{_counts(done.reasons)}"
    )


def _add_index(commands) -> None:
    index = commands.add_parser("index", help="make the index of tars that others built")
    index.add_argument("folder", metavar="DIR", help="folder with WebDataset tars; they are not changed")
    index.add_argument("--workers", type=int, default=1, metavar="N", help="processes; default: %(default)s")
    index.add_argument("--overwrite", action="store_true", help="make every sidecar anew")
    index.set_defaults(run=_index)


def _index(arguments: argparse.Namespace) -> None:
    done = index_shards(arguments.folder, arguments.workers, arguments.overwrite)
    print(
        f"indexed {done.samples} clips in {done.shards} tars ({done.bytes / 1e6:.1f} MB) at {arguments.folder}; "
        f"left out {sum(done.reasons.values())}{_counts(done.reasons)}"
    )
    if done.merged:
        print(
            f"vtok-shards: warning: {done.merged} samples hold several clips, because WebDataset takes what follows "
            "the first dot of a name for the ending: name the files without dots to have them apart",
            file=sys.stderr,
        )


def _add_verify(commands) -> None:
    verify = commands.add_parser("verify", help="check shards, index and manifest; exit code 1 and a list of faults")
    verify.add_argument("folder", metavar="DIR", help="folder of the dataset")
    verify.add_argument("--decode", action="store_true", help="also decode every clip in full")
    verify.add_argument("--workers", type=int, default=1, metavar="N", help="processes; default: %(default)s")
    verify.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    verdict = verify_shards(arguments.folder, arguments.decode, arguments.workers)
    for fault in verdict.faults:
        print(fault)
    if verdict.faults:
        print(f"{len(verdict.faults)} faults in {arguments.folder}")
        return 1
    decoded = ", every clip decodes" if arguments.decode else ""
    print(f"{verdict.samples} clips in {verdict.shards} shards ({verdict.bytes / 1e6:.1f} MB) are sound{decoded}")
    return 0


def _add_stats(commands) -> None:
    stats = commands.add_parser("stats", help="durations, sizes, codecs, captions and rejects of a dataset")
    stats.add_argument("folder", metavar="DIR", help="folder of the dataset")
    stats.add_argument("--json", action="store_true", help="the same numbers for machines")
    stats.set_defaults(run=_stats)


def _stats(arguments: argparse.Namespace) -> None:
    numbers = dataset_stats(arguments.folder)
    print(json.dumps(numbers, indent=1) if arguments.json else stats_table(numbers))


def _add_show(commands) -> None:
    show = commands.add_parser("show", help="a page with pictures, texts and facts of some samples")
    show.add_argument("folder", metavar="DIR", help="folder of the dataset")
    show.add_argument("--html", default="report.html", metavar="FILE", help="the page; default: %(default)s")
    show.add_argument("--samples", type=int, default=24, metavar="N", help="spread evenly; default: %(default)s")
    show.set_defaults(run=_show)


def _show(arguments: argparse.Namespace) -> None:
    shown = write_report(arguments.folder, arguments.html, arguments.samples)
    print(f"{shown} samples are shown in {arguments.html}")


def _counts(reasons: dict[str, int]) -> str:
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    return f" ({told})" if told else ""


def _shapes(arguments: argparse.Namespace) -> None:
    render_clips(arguments.output, arguments.clips, arguments.seed)
    print(f"rendered {arguments.clips} clips at {arguments.output}")


if __name__ == "__main__":
    sys.exit(main())
