"""The speed of one GPU at each kind of work: measured if there is a file for the card, else assumed.

    python pipelines/bench.py gpu    writes    pipelines/planning/cards/<card>.json    which a plan reads

A rate is the FLOP/s (or bytes/s) within the kernels of one kind. :mod:`pipelines.metering.kinds` counts the FLOPs. Host
work that no kernel hides is in seconds.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from vtok.config import require

CARDS = Path(__file__).parent / "cards"

ASSUMED = "assumed"


@dataclass(frozen=True)
class Rates:
    """The rates that a step's time is computed from. FLOP/s are for bf16, but one.

    The defaults are assumptions for an H100 SXM, not measurements: large products reach about 60 % of its data sheet
    (989 TFLOP/s, 3.35 TB/s), memory about 70 %. Attention is FlashAttention-2, which torch includes: about 400 TFLOP/s
    forward, and 320 TFLOP/s backward by its paper's count of 5 products to a forward's 2. Here a backward counts as 4
    products.

    Attributes:
        card: Name of the GPU that was measured, or ``assumed``.
        linear: FLOP/s of matrix products at the published widths.
        fp8: FLOP/s of fp8 matrix products (``decoder.fp8: dynamic``), apart from rounding their inputs. About half of
            the data sheet's 1979 TFLOP/s.
        attention, attention_backward: FLOP/s of flash attention without a mask, forward and backward.
        masked_attention: FLOP/s of attention with a mask, forward and backward. Flash kernels take no mask.
        convolution: FLOP/s of the autoencoder's 3D convolutions.
        memory: Bytes/s that all other operators read and write.
        host_seconds: Seconds that the host needs to launch the kernels of one micro-step, a lower bound of its time.
        host_operators: Operators of that micro-step (by default the paper's preset). The time of other micro-steps
            is in proportion to their operators.
    """

    card: str = ASSUMED
    linear: float = 600e12
    fp8: float = 1000e12
    attention: float = 400e12
    attention_backward: float = 250e12
    masked_attention: float = 150e12
    convolution: float = 200e12
    memory: float = 2.3e12
    host_seconds: float = 4.2
    host_operators: int = 20_500

    def __post_init__(self):
        for name, value in vars(self).items():
            require(name == "card" or value > 0, f"the rate {name} of {self.card} must be positive, not {value}")


def card_file(card: str, folder: Path = CARDS) -> Path:
    """Returns the file of a card's rates: ``cards/nvidia_h200.json`` for ``NVIDIA H200``."""
    return folder / ("_".join(card.lower().replace("/", " ").split()) + ".json")


def cards(folder: Path = CARDS) -> list[str]:
    """Lists the names that :func:`rates_of` knows: ``assumed`` and the measured cards."""
    return [ASSUMED, *sorted(file.stem for file in folder.glob("*.json"))]


def rates_of(card: str, folder: Path = CARDS) -> Rates:
    """Returns the rates of one of :func:`cards`, by either of its names (``NVIDIA H200``, ``nvidia_h200``).

    Raises:
        ConfigError: The card was not measured.
    """
    file = card_file(card, folder)
    known = card == ASSUMED or file.is_file()
    require(known, f"--card {card}: no rates were measured on it: choose one of {', '.join(cards(folder))}")
    return Rates() if card == ASSUMED else read_rates(file)


def read_rates(path: Path) -> Rates:
    """Reads a card's file. A rate that was not measured keeps its assumed value.

    Raises:
        ConfigError: There is no such file.
    """
    require(path.is_file(), f"{path}: no rates of this card: bench.py gpu measures them")
    stored = json.loads(path.read_text())
    known = {field.name for field in fields(Rates)}
    return Rates(**{name: value for name, value in stored["rates"].items() if name in known}, card=stored["card"])
