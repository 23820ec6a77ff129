"""``codes``: eq. 5 to the letter: cross-entropy over quantised tokens of one vocabulary.

The codebook is fixed. If the features are codes of a codebook, as those of a motion codec, a token has one code. Else
each dimension of a feature is quantised by itself, as in finite scalar quantisation (Mentzer et al., 2024), whose
learned projection a frozen feature does not need. The cells of a standardised feature are equally likely under a normal
distribution, so the whole vocabulary is used. Latents of a VidTok have the cells of its own FSQ.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from vtok.config import VisualHeadConfig
from vtok.devices import to_device
from vtok.sampling import PLAIN, Sampling
from vtok.visual_head.base import VisualHead, guided
from vtok.visual_head.cells import Cells, NormalCells
from vtok.visual_head.draws import Generators, categories


class CodesHead(VisualHead):
    """A distribution over the codes of each dimension, or over a token's one code. Dimensions are independent given the
    hidden state.

    Teacher-forced inputs are not quantised; a sampled input is the value of a code. With 32 levels the two differ by a
    standard deviation of 0.097 on normally distributed features (test_visual_head.py).
    """

    has_density = True

    def __init__(self, hidden_dim: int, dim: int, cells: Cells):
        super().__init__()
        self.dim, self.cells = dim, cells
        self.codes_per_token = 1 if cells.whole else dim
        self.linear = nn.Linear(hidden_dim, self.codes_per_token * cells.levels)

    @classmethod
    def build(cls, config: VisualHeadConfig, hidden_dim: int, dim: int, cells: Cells | None) -> "CodesHead":
        return cls(hidden_dim, dim, cells or NormalCells(config.levels))

    @property
    def terms(self) -> int:
        return self.codes_per_token

    def logits(self, hidden: Tensor) -> Tensor:
        """Computes the logits (n, codes_per_token, levels) in fp32."""
        return self.linear(hidden).float().unflatten(-1, (self.codes_per_token, self.cells.levels))

    def loss(self, hidden: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        # Flat, since some versions of torch have no deterministic cross-entropy over more dimensions.
        logits, codes = self.logits(hidden).flatten(0, 1), self.cells.quantise(target)
        return F.cross_entropy(logits, codes.flatten(), reduction="none").view_as(codes).mean(-1)

    def sample(
        self,
        hidden: Tensor,
        sampling: Sampling = PLAIN,
        generators: Generators = None,
        without_text: Tensor | None = None,
    ) -> Tensor:
        """Samples each code. Guidance leads the logits, then the temperature divides them."""
        logits = guided(self.logits(hidden), None if without_text is None else self.logits(without_text), sampling)
        if sampling.temperature == 0:
            codes = logits.argmax(-1)
        else:
            likely = (logits / sampling.temperature).softmax(-1)
            codes = to_device(categories(likely, generators), logits.device)
        return self.cells.dequantise(codes)
