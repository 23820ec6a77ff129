"""Randomness keyed by (seed, position, purpose).

Every random choice about a sample is a pure function of the run's seed, the sample's position in the endless sequence
and a word for the purpose. So every rank and worker draws the same value, before and after a restart. A new purpose
does not change the draws of the others.
"""

from dataclasses import dataclass
from hashlib import blake2b


def keyed_seed(seed: int, index: int, purpose: str) -> int:
    """A number in [0, 2**63) that depends on all three arguments and on nothing else."""
    digest = blake2b(f"{int(seed)}/{int(index)}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class Draws:
    """The draws of one sample: `Draws(seed, position).uniform("crop")`."""

    run_seed: int
    position: int

    def seed(self, purpose: str) -> int:
        """An integer in [0, 2**63): fits `torch.Generator.manual_seed`."""
        return keyed_seed(self.run_seed, self.position, purpose)

    def uniform(self, purpose: str) -> float:
        """A float in [0, 1)."""
        return (self.seed(purpose) >> 10) / 2**53

    def integer(self, purpose: str, n: int) -> int:
        """An integer in [0, n)."""
        return self.seed(purpose) % n
