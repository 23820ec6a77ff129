"""Mean and deviation of the frozen features, in whose units the heads predict them and ``g_phi`` reads residuals."""

import torch
from torch import Tensor, nn


class FeatureScale(nn.Module):
    """Standardises a frozen feature per dimension; buffers ``mean`` and ``std`` (dim,), 0 and 1 until calibrated.

    Attributes:
        fixed: whether they stay so, for features that a head takes as they are.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.fixed = False
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Fix the statistics; a dimension that never varies keeps a small positive ``std``."""
        if self.fixed:
            return
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(1e-4))

    def standardise(self, features: Tensor) -> Tensor:
        """Any dtype (..., dim) -> fp32."""
        return (features.float() - self.mean) / self.std

    def restore(self, standardised: Tensor) -> Tensor:
        return standardised * self.std + self.mean


def feature_scales(**dims: int) -> nn.ModuleDict:
    """One for each kind of feature, given their widths."""
    return nn.ModuleDict({kind: FeatureScale(dim) for kind, dim in dims.items()})
