"""Runs ``evaluate.py compare``."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from data_tools.shards import atomic_write
from pipelines.evaluation.comparison.rows import rows_of, scorers_of
from pipelines.evaluation.comparison.vbench import vbench_reports, vbench_table
from pipelines.evaluation.comparison.writing import as_latex, as_markdown, cells, draw
from pipelines.evaluation.results import read_report
from vtok.config import require


def evaluate(a: argparse.Namespace) -> None:
    """Runs the command: prints the tables, and writes them and the pictures to the output folder.

    Args:
        a: The arguments that ``evaluate.py`` parsed.

    Raises:
        ConfigError: A folder holds no report, the reports are about different items, or matplotlib is missing.
    """
    require(
        a.output is None or find_spec("matplotlib") is not None,
        "--output draws pictures with matplotlib, which is not installed: pip install 'vtok[plots]'",
    )
    names = a.names or different_names(a.results)
    if with_vbench := vbench_reports(a.results):
        show("vbench", vbench_table(with_vbench, names), a.output)
        return
    reports = [read_report(folder) for folder in a.results]
    for scorer in scorers_of(reports):
        rows = rows_of(reports, names, scorer)
        show(scorer, cells(rows), a.output)
        if a.output:
            draw(rows, reports[0].tables[scorer][-1]["controls"]["chance"], a.output / f"{scorer}.png")


def show(name: str, table: list[list[str]], output: Path | None) -> None:
    """Prints a table, and writes it to the output folder as Markdown and LaTeX."""
    print(f"{name}\n{as_markdown(table)}")
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    for ending, text in (("md", as_markdown(table)), ("tex", as_latex(table))):
        with atomic_write(output / f"{name}.{ending}") as file:
            file.write(text.encode())


def different_names(folders: list[Path]) -> list[str]:
    """Returns a name for each folder: the last part of its path, with as many before it as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]
