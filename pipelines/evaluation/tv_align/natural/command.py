"""Runs ``evaluate.py items``: writes the natural items, or proves that a file of items is fair."""

import argparse

from data_tools.errors import DataError
from data_tools.items import read_items, write_items
from pipelines.evaluation.tv_align.natural.items import natural_items
from pipelines.evaluation.tv_align.natural.proof import Proof, prove


def evaluate(a: argparse.Namespace) -> None:
    """Runs the command.

    Args:
        a: The arguments that ``evaluate.py`` parsed.

    Raises:
        DataError: The items are unfair; the message says how.
    """
    items = read_items(a.check) if a.check else natural_items()
    proof = prove(items)
    print(told(proof))
    if proof.faults:
        raise DataError(f"{a.check or 'the items'}: {'; '.join(proof.faults)}")
    if a.output:
        write_items(items, a.output)
        print(f"wrote {len(items)} items to {a.output}")


def told(proof: Proof) -> str:
    """Returns the proof's figures, line by line."""
    lines = [f"{name}: {count} items" for name, count in proof.counts.items()]
    lines.append(f"repeated prompts: {proof.repeats}")
    lines.append("answers at places " + ", ".join(f"{place + 1}: {count}" for place, count in proof.places.items()))
    lines.append(f"right by chance: {100 * proof.chance:.1f} %; from question and options alone:")
    lines += [f"  {name}: {100 * share:.1f} %" for name, share in proof.guesses.items()]
    return "\n".join(lines)
