"""Seconds per micro-step: in each phase, the time of its kernels or of launching them, whichever is longer."""

from typing import NamedTuple

from pipelines.metering.kinds import FLOP_KINDS, MEMORY
from pipelines.metering.meter import BACKWARD, OPERATORS, Usage
from pipelines.metering.step import DECODER_PARTS, Step
from pipelines.planning.rates import Rates


class Seconds(NamedTuple):
    """The time of some work: the device's, one kernel after another, and the host's."""

    device: float
    host: float

    @property
    def total(self) -> float:
        """The larger one: the device waits for the host, or the host for the device."""
        return max(self)


def seconds_of(usage: Usage, rates: Rates) -> Seconds:
    """Computes the time of a phase's work, without communication and without ZeRO's waiting."""
    device = sum(usage.work[kind] / getattr(rates, kind) for kind in (*FLOP_KINDS, MEMORY))
    return Seconds(device, usage.work[OPERATORS] * rates.host_seconds / rates.host_operators)


def micro_step_seconds(step: Step, rates: Rates, dec_every: int) -> dict[str, Seconds]:
    """Computes seconds by phase. The decoder's are averaged over steps with and without ``L_dec``."""
    seconds = {}
    for phase, usage in step.usage.items():
        share = dec_every if phase.removesuffix(BACKWARD) in DECODER_PARTS else 1
        seconds[phase] = Seconds(*(value / share for value in seconds_of(usage, rates)))
    return seconds
