"""``python pipelines/bench.py gpu``: so many minutes of one GPU, spent on what only a GPU can show.

python pipelines/bench.py gpu [--minutes 8] [--output DIR] [--keep]
python pipelines/bench.py gpu --table DIR/nvidia_h200.json

Every figure is on disk as soon as it is known, in DIR/<card>.json and, for people, in DIR/<card>.md.
"""

import argparse
import shutil
import signal
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pipelines.benchmarks.gpu import parts
from pipelines.benchmarks.gpu.findings import DONE, WAITING, Report, Result, cell, read_report, shown, table
from pipelines.benchmarks.gpu.running import run_parts
from pipelines.benchmarks.gpu.sizes import FULL, TINY
from pipelines.cli.errors import die
from pipelines.planning.rates import CARDS, card_file
from vtok.config import ConfigError, require

LIBRARIES = "torch", "deepspeed", "transformers", "diffusers"


def measure_gpu(arguments: argparse.Namespace) -> None:
    """Runs ``bench.py gpu``; what the user can mend ends with one line and exit code 2, a part that failed with 1."""
    # So that no part's process outlives it.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if arguments.table:
            require(arguments.table.is_file(), f"--table {arguments.table}: no such file")
            print(table(read_report(arguments.table)))
            return
        check(arguments)
        report = measure(arguments)
        if arguments.keep:
            require(bool(report.rates), "--keep: no rate was measured, nothing is kept")
            shutil.copyfile(card_file(report.card, arguments.output), card_file(report.card, made(CARDS)))
    except (ConfigError, OSError) as error:
        die("bench", error)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(table(report))
    sys.exit(0 if all(result.state == DONE for result in report.results.values()) else 1)


def check(arguments: argparse.Namespace) -> None:
    """Raises ConfigError: what is asked for cannot be had here."""
    require(arguments.minutes > 0, "--minutes must be positive")
    require(arguments.tiny or torch.cuda.is_available(), "there is no GPU here: give --tiny to see that the kit runs")
    require(not (arguments.tiny and arguments.keep), "--keep: the figures of --tiny mean nothing")


def measure(arguments: argparse.Namespace) -> Report:
    """Run the parts; the report on disk is always up to date."""
    end = time.monotonic() + 60 * arguments.minutes
    chosen = [part for part in parts.PARTS if part.name in (arguments.parts or [part.name])]
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    results = {part.name: Result(part.title) for part in chosen}
    report = Report(card, arguments.tiny, arguments.minutes, versions(), results)
    report.write(made(arguments.output))

    def tell(name: str, result: Result) -> None:
        results[name] = result
        report.rates = rates(results)
        report.write(arguments.output)
        if result.state == WAITING:
            finding = result.findings[-1]
            print(f"{result.title}: {cell(finding.name)}: {shown(finding)}", flush=True)
        else:
            print(f"{result.title}: {result.state} after {result.seconds:.0f} s. {result.reason}", flush=True)

    run_parts(chosen, TINY if arguments.tiny else FULL, end, tell)
    return report


def rates(results: dict[str, Result]) -> dict[str, float]:
    """Those of :class:`pipelines.planning.rates.Rates` that were measured."""
    found = [finding for result in results.values() for finding in result.findings]
    return {finding.rate: finding.value for finding in found if finding.rate and finding.value is not None}


def versions() -> dict[str, str]:
    """Of Python and the libraries that are there."""
    found = {"Python": ".".join(map(str, sys.version_info[:3]))}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def made(folder: Path) -> Path:
    """The folder, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
