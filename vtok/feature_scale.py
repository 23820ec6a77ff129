"""Mean and deviation of the frozen features.

The visual heads predict standardised features, and ``g_phi`` reads standardised residuals.
"""

import torch
from torch import Tensor, nn

from vtok.module_table import ModuleTable


class FeatureScale(nn.Module):
    """Standardises a frozen feature per dimension.

    Attributes:
        mean, std: Buffers (dim,), fp32, 0 and 1 until measured.
        fixed: Keeps them at 0 and 1, for a head that reads raw features.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.fixed = False
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Stores measured statistics. A dimension that never varies gets a small positive ``std``."""
        if self.fixed:
            return
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(1e-4))

    def standardise(self, features: Tensor) -> Tensor:
        """Standardises features (..., dim) of any dtype, to fp32."""
        return (features.float() - self.mean) / self.std

    def restore(self, standardised: Tensor) -> Tensor:
        """Inverts :meth:`standardise`."""
        return standardised * self.std + self.mean


def feature_scales(**dims: int) -> ModuleTable[FeatureScale]:
    """Builds a scale for each kind of feature, given the widths."""
    return ModuleTable({kind: FeatureScale(dim) for kind, dim in dims.items()})
