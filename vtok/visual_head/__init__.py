"""Visual heads: ``p(V_j | V_<j, text)`` from the language model's last hidden state (paper, eqs. 8 and 10).

The target is a frozen feature, standardised per dimension. With a trainable target, training would collapse. To add a
head, write a subclass of :class:`vtok.visual_head.base.VisualHead` in a file here and enter it in ``HEADS``.
"""

from vtok.config import VisualHeadConfig, member
from vtok.visual_head.base import VisualHead
from vtok.visual_head.cells import Cells, CodebookCells, FSQCells
from vtok.visual_head.codes import CodesHead
from vtok.visual_head.flow import FlowHead
from vtok.visual_head.gaussian_mixture import GaussianMixtureHead
from vtok.visual_head.regression import RegressionHead

__all__ = ["Cells", "CodebookCells", "FSQCells", "VisualHead", "build_visual_head"]

HEADS: dict[str, type[VisualHead]] = {
    "gmm": GaussianMixtureHead,
    "mse": RegressionHead,
    "flow": FlowHead,
    "codes": CodesHead,
}


def build_visual_head(config: VisualHeadConfig, hidden_dim: int, dim: int, cells: Cells | None = None) -> VisualHead:
    """Builds the head of ``config.kind``. Arguments as in :meth:`VisualHead.build`."""
    return member(HEADS, config.kind, "visual_head.kind").build(config, hidden_dim, dim, cells)
