"""Measures mean and deviation of the frozen features on the first batches of the run, before the first step.

They standardise the visual heads' targets and ``g_phi``'s inputs. All ranks take part in every forward, since ZeRO-3
gathers weights. The sums are fp64 over the same samples, so the statistics do not depend on the number of ranks.
"""

from collections.abc import Iterable

import torch

from pipelines.engine import distributed
from pipelines.engine.loading.loader import Loaded
from vtok.framework import VTokFramework


class Moments:
    """Running count, sum and sum of squares per dimension, in fp64."""

    def __init__(self, dim: int, device: torch.device):
        self.totals = torch.zeros(3, dim, dtype=torch.float64, device=device)

    def add(self, rows: torch.Tensor) -> None:
        """Adds rows (n, dim)."""
        rows = rows.double()
        self.totals += torch.stack([torch.full_like(self.totals[0], len(rows)), rows.sum(0), rows.square().sum(0)])

    def mean_and_std(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns mean and deviation, (dim,) each, over all ranks' rows; 0 and 1 without rows."""
        distributed.reduce_over_ranks(self.totals)
        count, total, squares = self.totals
        mean = total / count.clamp_min(1)
        variance = (squares / count.clamp_min(1) - mean.square()).clamp_min(0)
        return mean, torch.where(count > 0, variance.sqrt(), torch.ones_like(variance))


@torch.no_grad()
def calibrate(framework: VTokFramework, batches: Iterable[Loaded], device: torch.device) -> None:
    """Sets the tokeniser's ``feature_scale``, if any, from micro-batches. All ranks have the same number of them."""
    if not framework.tokeniser.feature_scale:
        return
    moments = {kind: Moments(scale.mean.numel(), device) for kind, scale in framework.tokeniser.feature_scale.items()}
    for loaded in batches:
        features = framework.features(loaded.batch)
        for kind, sums in moments.items():
            values, counts = features.of(kind)
            own = [own[:count] for own, count, shown in zip(values, counts, loaded.batch.shown) if shown]
            sums.add(torch.cat([values.new_zeros(0, values.shape[-1]), *own]))
    for kind, scale in framework.tokeniser.feature_scale.items():
        scale.set(*moments[kind].mean_and_std())
