"""Seconds of a micro-step: of each phase what its kernels take, or the host to start them, whichever is more."""

from typing import NamedTuple

from pipelines.metering.kinds import FLOP_KINDS, MEMORY
from pipelines.metering.meter import BACKWARD, OPERATORS, Usage
from pipelines.metering.step import DECODER_PARTS, Step
from pipelines.planning.rates import Rates


class Seconds(NamedTuple):
    """Of some work: the device's own, one kernel after another, and the host's."""

    device: float
    host: float

    @property
    def total(self) -> float:
        """The device waits for the host, or the host for the device."""
        return max(self)


def seconds_of(usage: Usage, rates: Rates) -> Seconds:
    """Time of a phase's work. Communication is not in it, nor what ZeRO lets the device wait for."""
    device = sum(usage.work[kind] / getattr(rates, kind) for kind in (*FLOP_KINDS, MEMORY))
    return Seconds(device, usage.work[OPERATORS] * rates.host_seconds / rates.host_operators)


def micro_step_seconds(step: Step, rates: Rates, dec_every: int) -> dict[str, Seconds]:
    """By phase; the decoder's averaged over the steps with and without an ``L_dec``."""
    seconds = {}
    for phase, usage in step.usage.items():
        share = dec_every if phase.removesuffix(BACKWARD) in DECODER_PARTS else 1
        seconds[phase] = Seconds(*(value / share for value in seconds_of(usage, rates)))
    return seconds
