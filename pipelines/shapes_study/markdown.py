"""What the tables of all reports share."""

from pipelines.shapes_study.seeds import Estimate


def head(first: list[str], categories: list[str]) -> str:
    """Returns the two first lines of a table: these columns, one for each category, and one for all."""
    columns = [*first, *map(words, categories), "all"]
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def words(category: str) -> str:
    """Returns a category's name as words."""
    return category.replace("_", " ")


def bold_if_clear(estimate: Estimate) -> str:
    """Returns a difference as text, in bold if its interval does not hold 0."""
    return f"**{estimate.text}**" if estimate.low > 0 or estimate.high < 0 else estimate.text
