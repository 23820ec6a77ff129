"""The game between autoencoder and discriminator: hinge losses, kept in balance."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

ADVERSARIAL_WEIGHT, MOST_WEIGHT, LEAST_GRADIENT = 0.2, 1e4, 1e-4
LECAM_WEIGHT, LECAM_DECAY = 0.005, 0.999


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's, of its logits for real and for reconstructed patches."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adversarial_loss(fake: Tensor) -> Tensor:
    """The autoencoder's, of the discriminator's logits for its reconstructions."""
    return -fake.mean()


class LeCAM(nn.Module):
    """Holds the discriminator's logits near where they have been on average (Tseng et al., 2021, arXiv 2104.03310).

    Attributes:
        means: of the logits for real and for reconstructed patches, (2,), moving averages over steps.
    """

    means: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("means", torch.zeros(2))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """0.005 times the regulariser: real logits should not rise above the mean for reconstructions, nor those below
        the mean for real patches."""
        mean_real, mean_fake = self.means
        distance = F.relu(real - mean_fake).square().mean() + F.relu(mean_real - fake).square().mean()
        return LECAM_WEIGHT * distance

    @torch.no_grad()
    def update(self, means: Tensor) -> None:
        """Follow a step's mean logits (2,), the same on all ranks."""
        self.means.lerp_(means.to(self.means), 1 - LECAM_DECAY)


def unchanged(module: nn.Module, x: Tensor) -> Tensor:
    """What a module makes of ``x``; gradients go through it to ``x``, and its own parameters get none."""
    return functional_call(module, {name: value.detach() for name, value in module.named_parameters()}, (x,))


def adaptive_weight(nll: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """The weight of the adversarial loss: 0.2 |d nll| / |d adversarial|, gradients of the decoder's last layer.

    So the discriminator's opinion moves that layer a fifth as much as the pixels do (Esser et al., 2021, equation 7).
    """
    norms = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (nll, adversarial)]
    return ADVERSARIAL_WEIGHT * (norms[0] / (norms[1] + LEAST_GRADIENT)).clamp(0, MOST_WEIGHT).detach()
