"""Runs ``evaluate.py compare``."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from data_tools.shards import atomic_write
from pipelines.evaluation.comparison.rows import rows_of, scorers_of
from pipelines.evaluation.comparison.writing import as_latex, as_markdown, draw
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
    reports = [read_report(folder) for folder in a.results]
    names = a.names or different_names(a.results)
    tables = {scorer: rows_of(reports, names, scorer) for scorer in scorers_of(reports)}
    for scorer, rows in tables.items():
        print(f"{scorer}\n{as_markdown(rows)}")
    if a.output is None:
        return
    a.output.mkdir(parents=True, exist_ok=True)
    for scorer, rows in tables.items():
        for ending, text in (("md", as_markdown(rows)), ("tex", as_latex(rows))):
            with atomic_write(a.output / f"{scorer}.{ending}") as file:
                file.write(text.encode())
        chance = reports[0].tables[scorer][-1]["controls"]["chance"]
        draw(rows, chance, a.output / f"{scorer}.png")


def different_names(folders: list[Path]) -> list[str]:
    """Returns a name for each folder: the last part of its path, with as many before it as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]
