"""What the kit found, and the two files it is written to: ``<card>.json``, which a plan reads, and ``<card>.md``."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipelines.planning.rates import card_file

DONE, FAILED, CUT_SHORT, SKIPPED, WAITING = "done", "failed", "cut short", "skipped", "waiting"

# Power of ten by which a unit's values are divided for people, and what the unit is called then.
SHOWN = {"s": (1e-3, "ms"), "bytes": (1e9, "GB"), "FLOP/s": (1e12, "TFLOP/s"), "bytes/s": (1e9, "GB/s")}


class Finding(NamedTuple):
    """One measured figure.

    Attributes:
        name: unique within its part.
        value: in ``unit``; ``None`` where it could not be measured, for the reason in ``note``.
        unit: ``s``, ``bytes``, ``FLOP/s``, ``bytes/s`` or what is counted.
        planned: what ``plan`` says of the same thing, before anything was measured.
        rate: the one of :class:`pipelines.planning.rates.Rates` that it is.
    """

    name: str
    value: float | None
    unit: str
    planned: float | None = None
    note: str = ""
    rate: str = ""


@dataclass
class Result:
    """One part.

    Attributes:
        state: ``waiting``, ``done``, ``failed``, ``cut short`` (it ran out of time) or ``skipped``.
        seconds: that it took.
        reason: why it is not done; of a failure the last lines of the traceback.
    """

    title: str
    state: str = WAITING
    seconds: float = 0.0
    reason: str = ""
    findings: list[Finding] = field(default_factory=list)

    def value(self, name: str) -> float | None:
        """A finding's value, if it was found."""
        return next((finding.value for finding in self.findings if finding.name == name), None)


@dataclass
class Report:
    """A run of the kit.

    Attributes:
        card: name of the GPU, or ``CPU``.
        tiny: whether the shapes were too small for the figures to mean anything.
        minutes: that it was given.
        versions: of Python and the libraries.
        results: by part.
        rates: of :class:`pipelines.planning.rates.Rates`, those that were measured.
    """

    card: str
    tiny: bool
    minutes: float
    versions: dict[str, str]
    results: dict[str, Result]
    rates: dict[str, float] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Both files; whoever reads them meanwhile sees the old ones or the new ones."""
        path = card_file(self.card, folder)
        replace(path, self.as_json())
        replace(path.with_suffix(".md"), table(self) + "\n")

    def as_json(self) -> str:
        stored = asdict(self)
        for result in stored["results"].values():
            result["findings"] = [finding._asdict() for finding in result["findings"]]
        return json.dumps(stored, indent=1) + "\n"


def read_report(path: Path) -> Report:
    """The report that :meth:`Report.write` wrote."""
    stored = json.loads(path.read_text())
    results = {
        name: Result(**result | {"findings": [Finding(**finding) for finding in result["findings"]]})
        for name, result in stored.pop("results").items()
    }
    return Report(**stored, results=results)


def table(report: Report) -> str:
    """The report in Markdown, as README has it."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [f"Measured on {report.card} ({versions})" + (", tiny shapes: the figures mean nothing" * report.tiny)]
    lines += ["", "| part | what | measured | plan |", "|---|---|---:|---:|"]
    for result in report.results.values():
        if result.state != DONE:
            reason = result.reason.strip().splitlines() or [""]
            lines.append(f"| {result.title} | {result.state}: {cell(reason[-1])} | | |")
        lines += [f"| {result.title} | {cell(f.name)} | {shown(f)} | {planned(f)} |" for f in result.findings]
    rates = (f"{name} {rate:.3g}" for name, rate in report.rates.items())
    return "\n".join([*lines, "", f"Rates for `plan` (FLOP/s; s): {', '.join(rates) or 'none measured'}"])


def shown(finding: Finding) -> str:
    """The measured value with its unit, or why there is none."""
    return finding.note if finding.value is None else readable(finding.value, finding.unit)


def planned(finding: Finding) -> str:
    return "" if finding.planned is None else readable(finding.planned, finding.unit)


def readable(value: float, unit: str) -> str:
    """``0.0123, "s"`` -> ``12.3 ms``."""
    scale, name = SHOWN.get(unit, (1, unit))
    return f"{value / scale:,.4g} {name}"


def cell(text: str) -> str:
    """Text that ends no cell of a table."""
    return text.replace("|", "/")


def replace(path: Path, text: str) -> None:
    """Write a file in one go."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    os.replace(part, path)
