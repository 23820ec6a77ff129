"""Checks the types of a configuration's fields where its class takes any value, and fails later or not at all."""

from inspect import signature
from typing import Any

from vtok.weights import Location

# Type of a field's default -> the types that JSON may give it.
TYPES: dict[type, tuple[type, ...]] = {
    bool: (bool,), int: (int,), float: (int, float), str: (str,), tuple: (list, tuple), list: (list, tuple),
}  # fmt: skip


def require_types(location: Location, name: str, kind: type, stored: dict[str, Any]) -> None:
    """Raises ConfigError unless the fields of a configuration have the types of the defaults of its class.

    Args:
        location: Where the configuration lies.
        name: Its file.
        kind: The class that it describes. Its arguments are the fields.
        stored: The configuration. Fields that the class does not have are not read.
    """
    for field, parameter in signature(kind).parameters.items():
        fits, value = TYPES.get(type(parameter.default)), stored.get(field, parameter.default)
        optional = value is None and "None" in str(parameter.annotation)
        if fits is not None and type(value) not in fits and not optional:
            raise location.error(
                f"{field} in its {name} is {value!r}, and should be like {parameter.default!r}: "
                f"take the {name} of these weights"
            )
