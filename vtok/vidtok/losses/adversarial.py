"""The losses that the autoencoder and the discriminator play against each other, and what keeps them in balance."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

ADVERSARIAL_WEIGHT, MOST_WEIGHT, LEAST_GRADIENT = 0.2, 1e4, 1e-4
LECAM_WEIGHT, LECAM_DECAY = 0.005, 0.999


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Returns the discriminator's loss, a scalar.

    Args:
        real: Its logits for patches of real videos.
        fake: Its logits for patches of reconstructions.
    """
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adversarial_loss(fake: Tensor) -> Tensor:
    """Returns the autoencoder's loss, a scalar: the non-saturating cross-entropy of each frame's or clip's mean logit.

    Args:
        fake: The discriminator's logits for patches of reconstructions. The first axis is frames or clips.
    """
    return F.softplus(-fake.flatten(1).mean(1)).mean()


class LeCAM(nn.Module):
    """A regulariser that keeps the discriminator's logits near their moving averages.

    From Tseng et al., 2021 (arXiv 2104.03310).

    Attributes:
        means: Moving averages over steps of the mean logit for real and for reconstructed patches, (2,).
    """

    means: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("means", torch.zeros(2))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Returns 0.005 times the regulariser, a scalar.

        It penalises logits for real patches above the average for reconstructions, and logits for reconstructions below
        the average for real patches.
        """
        mean_real, mean_fake = self.means
        distance = F.relu(real - mean_fake).square().mean() + F.relu(mean_real - fake).square().mean()
        return LECAM_WEIGHT * distance

    @torch.no_grad()
    def update(self, means: Tensor) -> None:
        """Moves the averages towards a step's mean logits (2,), which must be the same on all ranks."""
        self.means.lerp_(means.to(self.means), 1 - LECAM_DECAY)


def unchanged(module: nn.Module, x: Tensor) -> Tensor:
    """Returns ``module(x)``. Gradients reach ``x`` but not the parameters of the module."""
    return functional_call(module, {name: value.detach() for name, value in module.named_parameters()}, (x,))


def adaptive_weight(nll: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Returns the weight of the adversarial loss, a scalar without gradient: 0.2 |d nll| / |d adversarial|.

    Both gradients are taken at the decoder's last layer. So the adversarial loss moves that layer a fifth as much as
    the pixels do (Esser et al., 2021, equation 7).

    Args:
        nll: The reconstruction loss.
        adversarial: The adversarial loss.
        last_layer: The weight of the decoder's last convolution.
    """
    norms = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (nll, adversarial)]
    return ADVERSARIAL_WEIGHT * (norms[0] / (norms[1] + LEAST_GRADIENT)).clamp(0, MOST_WEIGHT).detach()
