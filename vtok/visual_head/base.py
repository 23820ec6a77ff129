"""The interface of a visual head."""

from torch import Tensor, nn

from vtok.config import VisualHeadConfig
from vtok.sampling import PLAIN, Sampling
from vtok.visual_head.cells import Cells
from vtok.visual_head.draws import Generators


class VisualHead(nn.Module):
    """A distribution over one visual feature, given the language model's state before it.

    Losses and samples are fp32. With no rows (n = 0) the parameters still get a gradient, which is zero.

    Attributes:
        dim: Width of the features.
        noise_dim: Standard normal draws that the loss of one position takes.
        has_density: Whether the loss is -log p, divided by ``terms``.
    """

    dim: int
    noise_dim: int = 0
    has_density: bool = False

    @property
    def terms(self) -> int:
        """How many parts of a feature the loss averages: its dimensions, if the head does not say otherwise."""
        return self.dim

    @classmethod
    def build(cls, config: VisualHeadConfig, hidden_dim: int, dim: int, cells: Cells | None) -> "VisualHead":
        """Builds the head for states of ``hidden_dim`` and targets of ``dim``.

        Args:
            config: The settings.
            hidden_dim: Width of the language model.
            dim: Width of the features.
            cells: The quantiser that the features have of their own, if any. Only ``codes`` uses it.
        """
        raise NotImplementedError

    def loss(self, hidden: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        """Computes the loss of each position, averaged over its dimensions: (n,).

        The caller draws the noise, so that it depends on the clip alone.

        Args:
            hidden: States (n, hidden_dim).
            target: Features (n, dim).
            noise: (n, noise_dim), standard normal.
        """
        raise NotImplementedError

    def sample(
        self,
        hidden: Tensor,
        sampling: Sampling = PLAIN,
        generators: Generators = None,
        without_text: Tensor | None = None,
    ) -> Tensor:
        """Samples a feature (n, dim) for each state (n, hidden_dim).

        Args:
            hidden: The states.
            sampling: How to sample. A temperature of 0 gives a deterministic sample.
            generators: On the CPU. One for all states, or one for each.
            without_text: The states without text, (n, hidden_dim), for classifier-free guidance.
        """
        raise NotImplementedError


def guided(given: Tensor, without: Tensor | None, sampling: Sampling) -> Tensor:
    """Leads an output away from the one without text, if there is one: classifier-free guidance."""
    return given if without is None else without + sampling.guidance * (given - without)
