"""Writes comparisons as Markdown, LaTeX and a picture."""

import re
from pathlib import Path

from pipelines.evaluation.comparison.rows import ALL, Row


def cells(rows: list[Row]) -> list[list[str]]:
    """Returns the table's cells, the head first. Accuracies are percentages; the best of a column is marked ``*``."""
    head = ["", *rows[0].shares, "95 % interval", "difference", "95 % interval", "p (McNemar)", "kappa"]
    best = {name: max(f"{100 * row.shares[name]:5.1f}" for row in rows) for name in rows[0].shares}
    table = [head]
    for row in rows:
        shares = [f"{100 * share:5.1f}" for share in row.shares.values()]
        marked = [f"{text.strip()}{'*' * (text == best[name] and len(rows) > 1)}" for name, text in zip(best, shares)]
        own = f"{100 * row.interval.low:.1f} to {100 * row.interval.high:.1f}"
        table.append([row.name, *marked, own, *compared(row)])
    return table


def compared(row: Row) -> list[str]:
    """Returns the cells that compare a row with the first."""
    if row.against_first is None:
        return [""] * 4
    pair = row.against_first
    between = f"{100 * pair.interval.low:+.1f} to {100 * pair.interval.high:+.1f}"
    return [f"{100 * pair.difference:+.1f}", between, f"{pair.p_value:.2g}", f"{row.agreement:.2f}"]


def as_markdown(table: list[list[str]]) -> str:
    """Returns a table of cells in Markdown. What is marked ``*`` is bold."""
    head, *body = ([re.sub(r"^(.*)\*$", r"**\1**", cell) for cell in line] for line in table)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def as_latex(table: list[list[str]]) -> str:
    """Returns a table of cells in LaTeX, for the package ``booktabs``. What is marked ``*`` is bold."""
    head, *body = table
    plain = [" & ".join(map(escaped, head)) + r" \\"]
    for line in body:
        marked = [rf"\textbf{{{escaped(cell[:-1])}}}" if cell.endswith("*") else escaped(cell) for cell in line]
        plain.append(" & ".join(marked) + r" \\")
    begin = rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}"
    return "\n".join([begin, r"\toprule", plain[0], r"\midrule", *plain[1:], r"\bottomrule", r"\end{tabular}", ""])


def escaped(text: str) -> str:
    """Returns a text with LaTeX's special characters escaped."""
    known = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(known.get(each, f"\\{each}" if each in "&%$#_{}" else each) for each in text)


def draw(rows: list[Row], chance: float, path: Path) -> None:
    """Draws the accuracies by category as bars; those of all items have their 95 % intervals.

    Args:
        rows: The rows.
        chance: Accuracy of a random guess, drawn as a line.
        path: PNG file.
    """
    import matplotlib  # optional: pip install 'vtok[plots]'

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names, width = list(rows[0].shares), 0.8 / len(rows)
    figure, axes = pyplot.subplots(figsize=(max(6, 1.2 * len(names)), 3.6), layout="constrained")
    for place, row in enumerate(rows):
        places = [column + (place - (len(rows) - 1) / 2) * width for column in range(len(names))]
        axes.bar(places, [100 * row.shares[name] for name in names], width, label=row.name)
        middle = 100 * row.shares[ALL]
        ends = [[middle - 100 * row.interval.low], [100 * row.interval.high - middle]]
        axes.errorbar([places[-1]], [middle], ends, color="black", capsize=3)
    axes.axhline(100 * chance, color="grey", linestyle="--", label="chance")
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
    axes.set(ylabel="right, %", ylim=(0, 100))
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
