"""Visual heads: ``p(V_j | V_<j, text)`` from the language model's last hidden state (paper, eqs. 5 and 10).

The target is a *frozen* feature, standardised per dimension: a trainable target collapses. One interface:

    noise_dim                                        standard normal draws that the loss of one position takes
    loss(hidden (n, d), target (n, dim), noise (n, noise_dim)) -> (n,)      averaged over a position's dimensions
    sample(hidden (n, d), temperature, generator) -> (n, dim)

Both are computed in fp32. With no rows at all (n = 0) the parameters still get a gradient, which is zero. The loss is
given its draws, so that they can belong to the clip; samples are drawn on the CPU, so that a seed gives the same one on
every device.
"""

from torch import nn

from vtok.config import VisualHeadConfig
from vtok.visual_head.codes import CodesHead, FSQCells, NormalCells
from vtok.visual_head.flow import FlowHead
from vtok.visual_head.gaussian_mixture import GaussianMixtureHead
from vtok.visual_head.regression import RegressionHead


def build_visual_head(config: VisualHeadConfig, hidden_dim: int, dim: int, fsq_levels: int | None = None) -> nn.Module:
    """The head ``config.kind`` names, from hidden states of ``hidden_dim`` to targets of ``dim``.

    Args:
        fsq_levels: of targets that are latents of an FSQ: ``codes`` are that one's.
    """
    match config.kind:
        case "gmm":
            return GaussianMixtureHead(hidden_dim, dim, config.components, config.min_scale)
        case "flow":
            return FlowHead(hidden_dim, dim, config.width, config.depth, config.steps)
        case "codes":
            return CodesHead(hidden_dim, dim, FSQCells(fsq_levels) if fsq_levels else NormalCells(config.levels))
        case "mse":
            return RegressionHead(hidden_dim, dim)
