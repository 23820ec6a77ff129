"""The parts of the kit, the most valuable first."""

from typing import NamedTuple


class Part(NamedTuple):
    """
    Attributes:
        name: of its module in this package, whose ``findings(sizes, device)`` gives its figures one by one.
        title: as tables call it.
        usual: seconds that it takes on a GPU, guessed until one is at hand: with fewer left it is not begun.
        most: seconds after which it is stopped there.
    """

    name: str
    title: str
    usual: float
    most: float


PARTS = (
    Part("marked_tests", "tests on a GPU", 60, 180),
    Part("products", "matrix products", 15, 40),
    Part("transformer", "DiT blocks", 30, 80),
    Part("attention", "attention", 25, 60),
    Part("fp8", "fp8", 30, 80),
    Part("compiled", "compiled blocks", 60, 150),
    Part("whole_step", "whole step, 1/64 width", 50, 120),
    Part("autoencoder", "autoencoder", 25, 60),
    Part("language_model", "language model", 20, 60),
    Part("save_buffers", "buffers of a save", 15, 40),
    Part("loader", "loader", 30, 60),
    Part("vidtok", "VidTok", 40, 120),
)
