"""``mse``: regression to the mean. It has no density."""

from torch import Tensor, nn

from vtok.config import VisualHeadConfig
from vtok.sampling import PLAIN, Sampling
from vtok.visual_head.base import VisualHead, guided
from vtok.visual_head.cells import Cells
from vtok.visual_head.draws import Generators


class RegressionHead(VisualHead):
    """Minimises the mean squared error. A sample is the mean at every temperature."""

    def __init__(self, hidden_dim: int, dim: int):
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(hidden_dim, dim)

    @classmethod
    def build(cls, config: VisualHeadConfig, hidden_dim: int, dim: int, cells: Cells | None) -> "RegressionHead":
        return cls(hidden_dim, dim)

    def loss(self, hidden: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        return (self.linear(hidden).float() - target.float()).square().mean(-1)

    def sample(
        self,
        hidden: Tensor,
        sampling: Sampling = PLAIN,
        generators: Generators = None,
        without_text: Tensor | None = None,
    ) -> Tensor:
        without = None if without_text is None else self.linear(without_text).float()
        return guided(self.linear(hidden).float(), without, sampling)
