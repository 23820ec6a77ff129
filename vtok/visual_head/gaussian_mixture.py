"""``gmm``: a mixture of Gaussians. It has the closed-form density that eq. 10 needs, and it can be sampled."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtok.config import VisualHeadConfig
from vtok.devices import to_device
from vtok.sampling import PLAIN, Sampling
from vtok.visual_head.base import VisualHead, guided
from vtok.visual_head.cells import Cells
from vtok.visual_head.draws import Generators, categories, normal


class GaussianMixtureHead(VisualHead):
    """A mixture of K diagonal Gaussians. The loss is the negative log-likelihood divided by the dimension."""

    has_density = True

    def __init__(self, hidden_dim: int, dim: int, components: int, min_scale: float):
        super().__init__()
        self.dim, self.components, self.min_scale = dim, components, min_scale
        self.linear = nn.Linear(hidden_dim, components * (1 + 2 * dim))

    @classmethod
    def build(cls, config: VisualHeadConfig, hidden_dim: int, dim: int, cells: Cells | None) -> "GaussianMixtureHead":
        return cls(hidden_dim, dim, config.components, config.min_scale)

    def parameters_of(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes log weights (n, K), means (n, K, dim) and standard deviations (n, K, dim), in fp32."""
        logits, mean, scale = (
            self.linear(hidden)
            .float()
            .split([self.components, self.components * self.dim, self.components * self.dim], dim=-1)
        )
        mean, scale = (x.unflatten(-1, (self.components, self.dim)) for x in (mean, scale))
        return logits.log_softmax(-1), mean, F.softplus(scale) + self.min_scale

    def loss(self, hidden: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        log_weight, mean, scale = self.parameters_of(hidden)
        z = (target.float().unsqueeze(-2) - mean) / scale
        log_density = -0.5 * (z.square() + math.log(2 * math.pi)) - scale.log()
        return -torch.logsumexp(log_weight + log_density.sum(-1), dim=-1) / self.dim

    def sample(
        self,
        hidden: Tensor,
        sampling: Sampling = PLAIN,
        generators: Generators = None,
        without_text: Tensor | None = None,
    ) -> Tensor:
        """Samples a component, then a value. The temperature scales the deviation; 0 gives the likeliest mean.

        Guidance leads the weights, and each component's mean as if both Gaussians had its deviation.
        """
        log_weight, mean, scale = self.parameters_of(hidden)
        if without_text is not None:
            other_weight, other_mean, _ = self.parameters_of(without_text)
            log_weight = guided(log_weight, other_weight, sampling).log_softmax(-1)
            mean = guided(mean, other_mean, sampling)
        if sampling.top_components is not None:
            least = log_weight.topk(min(sampling.top_components, self.components)).values[:, -1:]
            log_weight = log_weight.masked_fill(log_weight < least, -math.inf)
        if sampling.temperature == 0:
            component = log_weight.argmax(-1)
        else:
            component = to_device(categories(log_weight.exp(), generators), mean.device)
        mean, scale = (x[torch.arange(len(x), device=x.device), component] for x in (mean, scale))
        return mean + sampling.temperature * scale * to_device(normal(mean, generators), mean.device)
