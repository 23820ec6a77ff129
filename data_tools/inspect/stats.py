"""Distributions over the clips of a dataset, from the sidecars alone; no clip is opened."""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from data_tools.buckets import choose_buckets, read_bucket
from data_tools.buckets.nearest import distances
from data_tools.errors import DataError
from data_tools.shards import ROW, ShardReader, read_sidecar, sidecar_path
from data_tools.shards.rejected import REJECTED, read_rejected
from data_tools.shards.samples import media_endings
from data_tools.video.facts import SEVERAL

PERCENTILES = (5, 25, 50, 75, 95)
MEASURES = {  # name: (heading in the table, decimals)
    "seconds": ("duration, s", 2),
    "frames": ("frames", 0),
    "fps": ("frames per second", 2),
    "width": ("width, px", 0),
    "height": ("height, px", 0),
    "pixels": ("pixels a frame", 0),
    "video_bytes": ("clip, bytes", 0),
    "caption_words": ("caption, words", 0),
}
KINDS = {"kinds": "kinds", "codecs": "codecs", "sizes": "sizes, px", "pix_fmts": "pixel formats"}
NAMES = ("text", "image", "video")  # by the number of frames
# Buckets are chosen for videos of this size and length at most, and of this rate: the paper's.
LARGEST, FPS = "320x576x5", 24.0
WITHOUT_VIDEO = "without a video"
LISTED = 8  # number of values of a kind that the table lists; the others are summed


def dataset_stats(folder: str | Path, largest: str = LARGEST, fps: float = FPS) -> dict:
    """Counts, totals and distributions over all samples, ready for JSON.

    Args:
        folder: of the dataset.
        largest: size and length of the largest video that a run draws, HEIGHTxWIDTHxSECONDS.
        fps: of these videos.

    Returns:
        "samples", "shards", "bytes", "hours"; for each of `MEASURES` {"min", "p5" … "p95", "max", "mean"}; "kinds",
        "codecs", "sizes" ("WxH"), "pix_fmts" and "rejected" (by reason) as {name: count}, most frequent first;
        "buckets": those that `data.buckets auto` chooses, as {HEIGHTxWIDTHxSECONDS: count of its samples}.

    Raises:
        DataError: the folder is not a finished dataset, a sidecar lacks a field, or `largest` has another form.
    """
    folder = Path(folder)
    names = ShardReader(folder).shard_names
    columns: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
    kinds: dict[str, Counter[str]] = {name: Counter() for name in KINDS}
    total = 0
    for name in names:
        sidecar = read_sidecar(sidecar_path(folder, name))
        try:
            measured, found = _measured(sidecar["samples"]), _kinds(sidecar["samples"])
        except (KeyError, TypeError) as problem:
            raise DataError(
                f"{name}: its sidecar lacks {problem}: run `vtok-shards index {folder} --overwrite`"
            ) from None
        total += sidecar["bytes"]
        for measure, numbers in measured.items():
            columns[measure].append(np.array(numbers, dtype=np.float64))
        for kind, labels in found.items():
            kinds[kind].update(labels)
    values = {name: np.concatenate(parts) for name, parts in columns.items()}
    if not len(values["seconds"]):
        raise DataError(f"{folder}: its sidecars list no samples: run `vtok-shards index {folder} --overwrite`")
    rejected = Counter(line["reason"] for line in read_rejected(folder / REJECTED))
    return {
        "samples": len(values["seconds"]),
        "shards": len(names),
        "bytes": total,
        "hours": float(values["seconds"].sum()) / 3600,
        **{name: _distribution(column) for name, column in values.items()},
        **{name: dict(counts.most_common()) for name, counts in kinds.items()},
        "rejected": dict(rejected.most_common()),
        "buckets": buckets_of(values, largest, fps),
    }


def buckets_of(values: dict[str, np.ndarray], largest: str, fps: float) -> dict[str, int]:
    """The buckets that `data.buckets auto` chooses, each with the number of its samples.

    Args:
        values: `MEASURES` name -> one value per sample.
        largest, fps: as for `dataset_stats`.
    """
    if not 0 < fps < float("inf"):
        raise DataError(f"the rate of videos must be positive, not {fps:g}")
    facts = np.zeros(len(values["seconds"]), dtype=ROW)
    fields = {"duration": "seconds", "words": "caption_words", "frames": "frames", "width": "width", "height": "height"}
    for field, name in fields.items():
        facts[field] = values[name]
    whole = read_bucket(largest, fps)
    window = whole.seconds(fps), fps, "crop"
    buckets = choose_buckets(facts, whole, *window)
    counts = np.bincount(distances(facts, buckets, *window).argmin(axis=1), minlength=len(buckets) + 1)
    names = [*(bucket.written(fps) for bucket in buckets), WITHOUT_VIDEO]
    return {name: int(count) for name, count in zip(names, counts) if count}


def stats_table(numbers: dict) -> str:
    """`dataset_stats` as text: a line of totals, a table of distributions, a line for each kind."""
    headings = ("", "min", *(f"{percent} %" for percent in PERCENTILES), "max", "mean")
    rows = [
        [heading, *(f"{value:,.{decimals}f}" for value in numbers[name].values())]
        for name, (heading, decimals) in MEASURES.items()
    ]
    left = max(len(heading) for heading, _ in MEASURES.values())
    widths = [left, *(max(map(len, column)) for column in list(zip(headings, *rows))[1:])]
    lines = [
        f"clips {numbers['samples']:,}, shards {numbers['shards']:,}, {numbers['bytes'] / 1e6:,.1f} MB, "
        f"{numbers['hours']:,.2f} hours",
        "",
    ]
    for first, *cells in (headings, *rows):
        lines.append("  ".join([first.ljust(left), *(cell.rjust(n) for cell, n in zip(cells, widths[1:]))]))
    lines.append("")
    for name, heading in (KINDS | {"rejected": "rejected"}).items():
        lines.append(f"{heading.ljust(left)}  {_counted(numbers[name])}")
    lines += ["", "data.buckets auto would choose"]
    for name, count in numbers["buckets"].items():
        lines.append(f"{name.ljust(left)}  {count:,} ({count / numbers['samples']:.1%})")
    return "\n".join(lines)


def _measured(samples: list[dict]) -> dict[str, list]:
    """`MEASURES` name -> one value per sample."""
    facts = [sample["facts"] for sample in samples]
    return {
        "seconds": [fact["duration"] for fact in facts],
        **{name: [fact[name] for fact in facts] for name in ("frames", "fps", "width", "height")},
        "pixels": [fact["width"] * fact["height"] for fact in facts],
        "video_bytes": [_media_bytes(sample["members"]) for sample in samples],
        "caption_words": [sample["words"] for sample in samples],
    }


def _media_bytes(members: dict[str, int]) -> int:
    """Bytes of a sample's videos and images; 0 for a text alone."""
    several = [ending for ending in members if re.fullmatch(r"\d+\.\w+", ending)]
    return sum(members[ending] for ending in several or media_endings(list(members)))


def _kinds(samples: list[dict]) -> dict[str, list[str]]:
    """`KINDS` name -> one value per sample."""
    facts = [sample["facts"] for sample in samples]
    return {
        "kinds": [SEVERAL if fact["codec"] == SEVERAL else NAMES[min(fact["frames"], 2)] for fact in facts],
        "codecs": [fact["codec"] for fact in facts],
        "sizes": [f"{fact['width']}x{fact['height']}" for fact in facts],
        "pix_fmts": [fact["pix_fmt"] for fact in facts],
    }


def _distribution(values: np.ndarray) -> dict[str, float]:
    percentiles = np.percentile(values, PERCENTILES).tolist()
    middle = {f"p{percent}": value for percent, value in zip(PERCENTILES, percentiles)}
    return {"min": float(values.min()), **middle, "max": float(values.max()), "mean": float(values.mean())}


def _counted(counts: dict[str, int]) -> str:
    """The most frequent names with counts and shares, and the count of the others."""
    total, listed = sum(counts.values()), list(counts.items())[:LISTED]
    told = [f"{name} {count:,} ({count / total:.1%})" for name, count in listed]
    rest = total - sum(count for _, count in listed)
    return ", ".join(told + [f"others {rest:,}"] * bool(rest)) or "none"
