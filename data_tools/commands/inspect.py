"""`vtok-shards index`, `verify`, `stats` and `show`."""

import argparse
import json
import sys

from data_tools.processes.decoder import CLIP_TIMEOUT


def register(commands: argparse._SubParsersAction) -> None:
    """Add the commands to a parser."""
    _add_index(commands)
    _add_verify(commands)
    _add_stats(commands)
    _add_show(commands)


def _add_index(commands: argparse._SubParsersAction) -> None:
    index = commands.add_parser("index", help="index the tars of other tools")
    index.add_argument("folder", metavar="DIR", help="folder with WebDataset tars; they are not changed")
    index.add_argument("--workers", type=int, default=1, metavar="N", help="processes; default: %(default)s")
    _add_clip_timeout(index)
    index.add_argument("--overwrite", action="store_true", help="write all sidecars again")
    index.set_defaults(run=_index)


def _index(arguments: argparse.Namespace) -> None:
    from data_tools.inspect.index import index_shards  # only now: this imports torch

    done = index_shards(arguments.folder, arguments.workers, arguments.overwrite, arguments.clip_timeout)
    print(
        f"indexed {done.samples} clips in {done.shards} tars ({done.bytes / 1e6:.1f} MB) at {arguments.folder}; "
        f"left out {sum(done.reasons.values())}{_by_reason(done.reasons)}"
    )
    if done.merged:
        print(
            f"vtok-shards: warning: {done.merged} samples hold several clips, because WebDataset ends a key at the "
            "first dot of a name: to separate them, rename the files without dots",
            file=sys.stderr,
        )
    for sentence in done.beside:
        print(f"vtok-shards: warning: {sentence}", file=sys.stderr)


def _add_verify(commands: argparse._SubParsersAction) -> None:
    verify = commands.add_parser("verify", help="check shards, index and manifest; exit code 1 and a list of faults")
    verify.add_argument("folder", metavar="DIR", help="folder of the dataset")
    verify.add_argument("--decode", action="store_true", help="also decode every clip in full")
    verify.add_argument("--workers", type=int, default=1, metavar="N", help="processes; default: %(default)s")
    _add_clip_timeout(verify)
    verify.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    from data_tools.inspect.verify import verify_shards

    verdict = verify_shards(arguments.folder, arguments.decode, arguments.workers, arguments.clip_timeout)
    for fault in verdict.faults:
        print(fault)
    if verdict.faults:
        print(f"{len(verdict.faults)} faults in {arguments.folder}")
        return 1
    decoded = ", every clip decodes" if arguments.decode else ""
    print(f"{verdict.samples} clips in {verdict.shards} shards ({verdict.bytes / 1e6:.1f} MB) are sound{decoded}")
    return 0


def _add_stats(commands: argparse._SubParsersAction) -> None:
    stats = commands.add_parser("stats", help="durations, sizes, codecs, captions, rejects and buckets of a dataset")
    stats.add_argument("folder", metavar="DIR", help="folder of the dataset")
    stats.add_argument(
        "--largest",
        default="320x576x5",
        metavar="HxWxS",
        help="size and seconds of a run's largest video, for the buckets; default: %(default)s",
    )
    stats.add_argument("--fps", type=float, default=24.0, help="rate of these videos; default: %(default)g")
    stats.add_argument("--json", action="store_true", help="print JSON")
    stats.set_defaults(run=_stats)


def _stats(arguments: argparse.Namespace) -> None:
    from data_tools.inspect.stats import dataset_stats, stats_table

    numbers = dataset_stats(arguments.folder, arguments.largest, arguments.fps)
    print(json.dumps(numbers, indent=1) if arguments.json else stats_table(numbers))


def _add_show(commands: argparse._SubParsersAction) -> None:
    show = commands.add_parser("show", help="write a page with pictures, texts and facts of some samples")
    show.add_argument("folder", metavar="DIR", help="folder of the dataset")
    show.add_argument("--html", default="report.html", metavar="FILE", help="the page; default: %(default)s")
    show.add_argument("--samples", type=int, default=24, metavar="N", help="evenly spaced; default: %(default)s")
    show.set_defaults(run=_show)


def _show(arguments: argparse.Namespace) -> None:
    from data_tools.inspect.show import write_report

    shown = write_report(arguments.folder, arguments.html, arguments.samples)
    print(f"{shown} samples are shown in {arguments.html}")


def _add_clip_timeout(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--clip-timeout",
        type=float,
        default=CLIP_TIMEOUT,
        metavar="S",
        help="seconds for decoding one clip; default: %(default)g",
    )


def _by_reason(reasons: dict[str, int]) -> str:
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    return f" ({counts})" if counts else ""
