"""Slips in a YAML file that a loader accepts silently: a key twice, an empty value, 1:30 read as 90, 010 as 8."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from vtok.config import ConfigError, require

SIXTIES = re.compile(r"[-+]?\d+(:[0-5]?\d)+(\.\d*)?")  # YAML 1.1 reads 1:30 as 90
EIGHTS = re.compile(r"[-+]?0[0-7_]*[1-7][0-7_]*")  # YAML 1.1 reads 010 as 8


def require_no_slips(path: Path, text: str, kind: type | None = None) -> None:
    """Looks through a YAML file.

    Args:
        path: The file, for the message.
        text: What is in it; valid YAML.
        kind: The dataclass that it fills, if the values may not be empty where that has no ``None``.

    Raises:
        ConfigError: There is a slip; the message names the key and the line.
    """
    for key, node, again in entries(yaml.compose(text, Loader=yaml.SafeLoader)):
        place = f"{path}, line {node.start_mark.line + 1}: {key}"
        require(not again, f"{place} is given twice: remove one")
        if not isinstance(node, yaml.ScalarNode) or node.style is not None:
            continue
        require(
            SIXTIES.fullmatch(node.value) is None,
            f"{place} is {node.value}, which YAML reads as a number of base 60: write a plain number, or quote it",
        )
        require(
            EIGHTS.fullmatch(node.value) is None,
            f"{place} is {node.value}, which YAML reads as a number of base 8: write it without the zero, or quote it",
        )
        if kind and node.tag.endswith(":null") and not may_be_none(kind, key):
            raise ConfigError(f"{place} is empty: give it a value, or leave it out")


def entries(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, yaml.Node, bool]]:
    """Every key of a tree by its dotted name, with its value and whether the name stood there before."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        yield name, value, name in seen
        seen.add(name)
        yield from entries(value, f"{name}.")


def may_be_none(kind: type, key: str) -> bool:
    """Whether a setting takes ``null``; an unknown one is told of elsewhere."""
    name, _, rest = key.partition(".")
    types: dict[str, Any] = {f.name: f.type for f in fields(kind)}
    if name not in types:
        return True
    if not rest:
        return type(None) in get_args(types[name])
    inner = [one for one in (types[name], *get_args(types[name])) if is_dataclass(one)]
    return may_be_none(inner[0], rest) if inner else True
