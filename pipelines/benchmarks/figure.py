"""What a part of the bench gives."""

from typing import NamedTuple


class Figure(NamedTuple):
    """A measured value and its bound, ``at_least`` or ``at_most``; without one it is only reported."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None
    is_ratio: bool = True  # else seconds or bytes, which are this machine's alone

    @property
    def met(self) -> bool:
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    @property
    def bound(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least}"
        return "" if self.at_most is None else f"<= {self.at_most}"
