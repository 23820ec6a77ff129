"""Runs ``evaluate.py page``: writes an evaluation as one HTML file that needs nothing else and asks nobody."""

import argparse
import secrets
from base64 import b64encode
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader

from data_tools.errors import DataError
from data_tools.shards import atomic_write
from pipelines.evaluation.results import Report, read_report

MEGABYTE = 1 << 20
_TEMPLATES = Environment(
    loader=ChoiceLoader([PackageLoader("pipelines.evaluation.page", "."), PackageLoader("data_tools.inspect", ".")]),
    autoescape=True, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
_TEMPLATES.policies["json.dumps_kwargs"] = {"sort_keys": False}  # in the order of the report


def evaluate(a: argparse.Namespace) -> None:
    """Runs the command.

    Args:
        a: The arguments that ``evaluate.py`` parsed.

    Raises:
        ConfigError: The folder holds no report.
        DataError: A video is missing.
    """
    report = read_report(a.results)
    videos = embedded(report, int(a.embed_mb * MEGABYTE))
    values = content(report, set(videos))
    with atomic_write(a.output) as file:
        for piece in pieces(a.results.resolve().name, values, videos):
            file.write(piece.encode())
    left = len({item["video"] for item in report.items}) - len(videos)
    print(f"wrote {len(report.items)} items to {a.output}" + (f"; {left} larger videos are left out" if left else ""))


def embedded(report: Report, most: int) -> dict[str, Path]:
    """Returns the videos of at most so many bytes, by their place in the report.

    Raises:
        DataError: A video is missing.
    """
    places = {item["video"]: report.folder / item["video"] for item in report.items}
    missing = [path for path in places.values() if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(places)} videos of {report.folder} are missing, the first is {missing[0]}"
        )
    return {place: path for place, path in places.items() if path.stat().st_size <= most}


def content(report: Report, shown: set[str]) -> dict[str, Any]:
    """Returns what the page's script shows: scorers, their figures, and the items.

    Args:
        report: The report.
        shown: Videos that the page holds.
    """
    figures = {
        scorer: {"right": lines[-1]["right"], "asked": lines[-1]["asked"], "interval": lines[-1]["interval"]}
        for scorer, lines in report.tables.items()
    }
    items = [item | {"shown": item["video"] in shown} for item in report.items]
    return {"figures": figures, "items": items, "settings": report.settings}


def pieces(title: str, values: dict[str, Any], videos: dict[str, Path]):
    """Yields the page in pieces, so that only one video is in memory."""
    coded = ((place, b64encode(path.read_bytes()).decode()) for place, path in videos.items())
    template = _TEMPLATES.get_template("page.html")
    yield from template.generate(title=title, values=values, videos=coded, nonce=secrets.token_urlsafe(16))
