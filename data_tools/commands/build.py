"""`vtok-shards build` and `vtok-shards merge`."""

import argparse
import os
from fractions import Fraction
from typing import TYPE_CHECKING

from data_tools.errors import DataError
from data_tools.processes.decoder import CLIP_TIMEOUT
from data_tools.video.encode import ENCODERS, HDR

if TYPE_CHECKING:
    from data_tools.packing.merge import BuildSummary
    from data_tools.packing.plan import Part

INPUT = (
    "folder with captions.csv, .jsonl or .parquet, or the table itself; folder of videos with NAME.txt or NAME.json; "
    "folder of NAME/frames folders; folder of WebDataset tars"
)


def register(commands: argparse._SubParsersAction) -> None:
    """Add the commands to a parser."""
    build = commands.add_parser("build", help="check clips and pack them into shards; run again to resume")
    build.set_defaults(run=_build)
    build.add_argument("input", metavar="INPUT", help=INPUT)
    build.add_argument("--output", required=True, metavar="DIR", help="folder for the dataset")
    build.add_argument("--samples-per-shard", type=int, default=1000, metavar="N", help="default: %(default)s")
    build.add_argument("--val-share", type=float, default=0.0, metavar="P", help="split into DIR/train and DIR/val")
    build.add_argument("--overwrite", action="store_true", help="delete an existing build first")

    fields = build.add_argument_group("fields of the input")
    fields.add_argument("--video-column", default="path", metavar="NAME", help="default: %(default)s")
    fields.add_argument("--caption-column", default="caption", metavar="NAME", help="default: %(default)s")
    fields.add_argument("--source-column", metavar="NAME", help="clips of one source go to the same side of the split")

    clips = build.add_argument_group("processing of the clips")
    clips.add_argument("--short-side", type=int, metavar="PIXELS", help="scale larger clips down to this")
    clips.add_argument("--fps", type=_fraction, metavar="RATE", help="constant frame rate, such as 24 or 30000/1001")
    clips.add_argument("--codec", choices=list(ENCODERS), help="re-encode every clip with this (default: h264)")
    clips.add_argument("--crf", type=int, metavar="Q", help="quality of re-encoding, lower is better (default: 20)")
    clips.add_argument("--max-seconds", type=float, metavar="S", help="cut longer clips to their first S seconds")
    clips.add_argument("--min-frames", type=int, default=2, metavar="N", help="reject shorter clips")
    clips.add_argument("--min-side", type=int, default=1, metavar="PIXELS", help="reject smaller clips")

    clips.add_argument("--hdr", choices=HDR, default=HDR[0], help="tone-map or reject HDR clips (default: %(default)s)")

    work = build.add_argument_group("resources; the shards do not depend on them")
    work.add_argument("--workers", type=int, default=_cpus(), metavar="N", help="processes (default: %(default)s)")
    work.add_argument(
        "--clip-timeout",
        type=float,
        default=CLIP_TIMEOUT,
        metavar="S",
        help="seconds for a clip (default: %(default)g)",
    )
    work.add_argument("--part", type=_part, metavar="I/N", help="pack part I of N only, counted from 0")

    join = commands.add_parser("merge", help="finish a build after all its parts are packed")
    join.add_argument("folder", metavar="DIR", help="the --output of the parts")
    join.set_defaults(run=_merge)


def _build(arguments: argparse.Namespace) -> None:
    from data_tools.packing.builder import build_shards  # only now: this imports torch
    from data_tools.packing.plan import Part
    from data_tools.packing.prepare import Recipe
    from data_tools.packing.sources import Columns
    from data_tools.packing.transcode import Encoding

    encoded = (arguments.short_side, arguments.fps, arguments.codec, arguments.crf) != (None,) * 4
    default = Encoding()
    encoding = Encoding(
        arguments.short_side,
        arguments.fps,
        arguments.codec or default.codec,
        default.crf if arguments.crf is None else arguments.crf,
    )
    summary = build_shards(
        arguments.input,
        arguments.output,
        arguments.samples_per_shard,
        columns=Columns(arguments.video_column, arguments.caption_column, arguments.source_column),
        recipe=Recipe(
            encoding if encoded else None,
            arguments.max_seconds,
            arguments.min_frames,
            arguments.min_side,
            arguments.hdr,
        ),
        val_share=arguments.val_share,
        workers=arguments.workers,
        clip_timeout=arguments.clip_timeout,
        part=arguments.part or Part(),
        overwrite=arguments.overwrite,
    )
    _report(summary, arguments.output)


def _merge(arguments: argparse.Namespace) -> None:
    from data_tools.packing.merge import merge

    _report(merge(arguments.folder), arguments.folder)


def _report(done: "BuildSummary", folder: str) -> None:
    """Print the totals and, if clips were rejected, a table of the reasons."""
    print(
        f"packed {done.packed} clips into {done.shards} shards ({done.bytes / 1e6:.1f} MB) at {folder}; "
        f"rejected {done.rejected}"
    )
    if done.reasons:
        width = max(map(len, done.reasons))
        print(f"  {'rejected for':{width}}   clips   share")
    for reason, count in sorted(done.reasons.items(), key=lambda entry: (-entry[1], entry[0])):
        print(f"  {reason:{width}} {count:7} {count / (done.packed + done.rejected):7.2%}")
    if done.unfinished:
        print(
            f"{done.unfinished} shards of other parts are missing: the last part will merge, or run "
            f"`vtok-shards merge {folder}`"
        )


def _part(text: str) -> "Part":
    from data_tools.packing.plan import Part

    try:
        index, count = map(int, text.split("/"))
        return Part(index, count)
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, such as 0/8") from None


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a frame rate") from None


def _cpus() -> int:
    """The number of CPUs that this process may use; a Slurm task may have fewer than its node."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
