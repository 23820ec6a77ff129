"""How videos are sampled. It imports no torch, so commands can check their arguments at once."""

import math
from dataclasses import dataclass

from vtok.config import require


@dataclass(frozen=True)
class Sampling:
    """Settings of :func:`vtok.generation.generate_batch`. The defaults sample from the model's own distribution.

    Args:
        temperature: 1 is the model's distribution; less narrows it; 0 takes the likeliest.
        top_components: For the visual head ``gmm``: only this many of the likeliest components take part. All if
            omitted.
        guidance: Scale of classifier-free guidance: the head's output is led away from that without text. 1 is off. It
            needs a model that was trained with ``data.text_dropout``.
        candidates: Sequences that are sampled for a prompt. The likeliest is taken. For the visual heads ``gmm`` and
            ``codes``, which have a density.
        best_of: Videos that are made of a prompt. The one that the model itself would describe by the prompt most
            likely is kept (:mod:`vtok.best_of`).
    """

    temperature: float = 1.0
    top_components: int | None = None
    guidance: float = 1.0
    candidates: int = 1
    best_of: int = 1

    def __post_init__(self) -> None:
        require(
            0 <= self.temperature < math.inf, f"temperature must be finite and not negative, not {self.temperature:g}"
        )
        require(
            self.top_components is None or self.top_components >= 1,
            f"top_components must be at least 1, not {self.top_components}",
        )
        require(0 <= self.guidance < math.inf, f"guidance must be finite and not negative, not {self.guidance:g}")
        require(self.candidates >= 1, f"candidates must be at least 1, not {self.candidates}")
        require(self.best_of >= 1, f"best_of must be at least 1, not {self.best_of}")


PLAIN = Sampling()
