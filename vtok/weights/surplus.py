"""Finds stored weights that a model has no place for, and would silently run without.

A file may hold more than one model: a vision tower beside a language model, a decoder beside T5's encoder. So a stored
tensor counts only if it is the weight or bias of a module inside the model. Other models, heads of their own, rotary
frequencies and position ids do not count.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import accumulate

LEARNED = (".weight", ".bias")


def surplus(stored: Iterable[str], names: Collection[str], keys: Mapping[str, tuple[str, ...]]) -> str | None:
    """Describes the first stored tensor that the model lacks.

    Args:
        stored: Names of the stored tensors.
        names: Names of the part's parameters in the model, without those of adapters.
        keys: As in :class:`vtok.weights.Part`.

    Returns:
        What the model has and what is stored; ``None`` if every tensor has its place.
    """
    stored, modules = sorted(stored), modules_of(names)
    for key in stored:
        places = places_of(key, keys) if key.endswith(LEARNED) else []
        if any(place in names for place in places):
            continue
        for place in places:
            blocks = list_in(place)
            if blocks and parent(blocks) in modules:
                has, held = length(blocks, names), length(list_in(key), stored)
                if held > has:
                    return f"a model with {has} of {list_in(key)}, but the weights hold {held}"
            elif parent(place) not in modules:
                continue
            return f"a model without {key}, but the weights hold it"
    return None


def places_of(key: str, keys: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Returns the names that a parameter stored as ``key`` may have in the model."""
    pairs = [(prefix, held) for prefix, alternatives in keys.items() for held in alternatives]
    return [prefix + key.removeprefix(held) for prefix, held in pairs if key.startswith(held)]


def modules_of(names: Iterable[str]) -> set[str]:
    """Returns the modules that parameters stand in, at any depth: ``a`` and ``a.b`` for ``a.b.weight``."""
    return {module for name in names for module in accumulate(name.split(".")[:-1], "{}.{}".format)} | {""}


def list_in(name: str) -> str:
    """Returns the outermost list of modules that a parameter stands in: ``a.layers`` for ``a.layers.3.b.weight``."""
    pieces = name.split(".")
    first = next((at for at, piece in enumerate(pieces) if piece.isdecimal()), 0)
    return ".".join(pieces[:first])


def length(modules: str, names: Iterable[str]) -> int:
    """Returns the length of a list of modules, by the names of all parameters."""
    inside = (name.removeprefix(f"{modules}.").partition(".")[0] for name in names if name.startswith(f"{modules}."))
    return max((int(number) + 1 for number in inside if number.isdecimal()), default=0)


def parent(name: str) -> str:
    """Returns the name of the module that a module or a parameter stands in."""
    return name.rpartition(".")[0]
