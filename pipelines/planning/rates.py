"""Rates that one GPU really reaches, by kind of work: measured on a card where there is a file of it, else assumed.

    python pipelines/bench.py gpu    writes    pipelines/planning/cards/<card>.json    which a plan reads

A rate is FLOP/s (or bytes/s) reached inside the kernels of one kind; FLOPs are counted as by
:mod:`pipelines.metering.kinds`. Work of the host that no kernel hides is in seconds.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from vtok.config import require

CARDS = Path(__file__).parent / "cards"

ASSUMED = "assumed"


@dataclass(frozen=True)
class Rates:
    """What a step's time is computed from; all FLOP/s are of bf16.

    The defaults are assumptions for an H100 SXM, of no measurement of ours: of its data sheet (989 TFLOP/s, 3.35 TB/s)
    large products reach some 60 %, memory some 70 %. Attention is FlashAttention-2's, which torch has: about 400
    TFLOP/s forward, and backward 320 of those that its paper counts, which are 5 products to a forward's 2. Here a
    backward counts as 4.

    Attributes:
        card: name of the GPU they were measured on, or ``assumed``.
        linear: FLOP/s of matrix products at the published widths.
        attention, attention_backward: FLOP/s of flash attention without a mask, forward and backward.
        masked_attention: FLOP/s of attention with a mask, which no flash kernel takes, forward and backward.
        convolution: FLOP/s of the autoencoder's 3D convolutions.
        memory: bytes/s that all other operators read and write.
        host_seconds: of a micro-step, that the host takes to start its kernels; a lower bound of its time.
        host_operators: operators in that micro-step (by default those of the paper's preset); others take the host as
            long for each of theirs.
    """

    card: str = ASSUMED
    linear: float = 600e12
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
    """Where the rates of a card lie: ``NVIDIA H200`` -> ``cards/nvidia_h200.json``."""
    return folder / ("_".join(card.lower().replace("/", " ").split()) + ".json")


def cards(folder: Path = CARDS) -> list[str]:
    """What :func:`rates_of` knows: ``assumed``, and the cards whose rates were measured."""
    return [ASSUMED, *sorted(file.stem for file in folder.glob("*.json"))]


def rates_of(card: str, folder: Path = CARDS) -> Rates:
    """The rates of one of :func:`cards`, by either of its names (``NVIDIA H200``, ``nvidia_h200``).

    Raises:
        ConfigError: none were measured on such a card.
    """
    file = card_file(card, folder)
    known = card == ASSUMED or file.is_file()
    require(known, f"--card {card}: no rates were measured on it: choose one of {', '.join(cards(folder))}")
    return Rates() if card == ASSUMED else read_rates(file)


def read_rates(path: Path) -> Rates:
    """The rates in a card's file; a rate that was not measured keeps its assumed value.

    Raises:
        ConfigError: no such file, or no JSON object of a card.
    """
    require(path.is_file(), f"{path}: no rates of this card: bench.py gpu measures them")
    stored = json.loads(path.read_text())
    known = {field.name for field in fields(Rates)}
    return Rates(**{name: value for name, value in stored["rates"].items() if name in known}, card=stored["card"])
