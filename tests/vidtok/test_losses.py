"""The losses of a VidTok against their formulas, written out."""

import math

import pytest
import torch
from torch import nn

from support.vidtok import random_video, small_model
from vtok.vidtok.losses.adversarial import LeCAM, adaptive_weight, adversarial_loss, hinge_loss, unchanged
from vtok.vidtok.losses.discriminator import PatchGAN
from vtok.vidtok.losses.objective import autoencoder_losses, nll_loss
from vtok.vidtok.losses.perceptual import LPIPS


class Distances(LPIPS):
    """A stand-in for LPIPS with a known distance: the mean difference of a picture's first channel."""

    def forward(self, x, y):
        return (x[:, 0] - y[:, 0]).abs().mean((1, 2))


def videos():
    return random_video(3, 16, batch=2), random_video(3, 16, batch=2).flip(2) * 0.5


@pytest.mark.parametrize("lpips", [None, Distances()])
def test_nll_value_by_value(lpips):
    """Each frame's distance is added to each of its values."""
    (x, y), log_variance = videos(), torch.tensor(0.3)
    total = 0.0
    for clip in range(2):
        for frame in range(3):
            a, b = x[clip, :, frame], y[clip, :, frame]
            distance = (a[0] - b[0]).abs().mean().item() if lpips else 0.0
            for value, theirs in zip(a.flatten().tolist(), b.flatten().tolist()):
                total += (abs(value - theirs) + distance) / 2.718281828459045**0.3 + 0.3
    assert nll_loss(x, y, log_variance, lpips).item() == pytest.approx(total / (2 * 3), rel=1e-5)


def test_the_learned_variance_has_its_optimum_at_the_mean_error():
    x, y = videos()
    log_variance = (x - y).abs().mean().log().requires_grad_()
    nll_loss(x, y, log_variance).backward()
    assert log_variance.grad.abs().item() < 1e-3


def test_hinge_and_adversarial_losses():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert hinge_loss(real, fake).item() == pytest.approx(0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3))
    patches = torch.tensor([[[-3.0, 1.0]], [[0.5, 0.5]]])  # of two frames
    published = (math.log(1 + math.exp(1.0)) + math.log(1 + math.exp(-0.5))) / 2
    assert adversarial_loss(patches).item() == pytest.approx(published)


def test_lecam():
    """A step moves the averages by a thousandth of the difference. Its regulariser uses the old averages."""
    lecam, real, fake = LeCAM(), torch.tensor([1.0, -2.0]), torch.tensor([-1.0, 3.0])
    assert lecam(real, fake).item() == pytest.approx(0.005 * (1 / 2 + 1 / 2))
    lecam.update(torch.tensor([100.0, -200.0]))
    torch.testing.assert_close(lecam.means, torch.tensor([0.1, -0.2]))
    expected = 0.005 * ((1.2**2 + 0) / 2 + (1.1**2 + 0) / 2)
    assert lecam(real, fake).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dims, patches", [(2, (6, 1, 6, 6)), (3, (2, 1, 1, 8, 8))])
def test_patchgan_judges_patches(dims, patches):
    torch.manual_seed(0)
    discriminator, x = PatchGAN(dims, width=8), random_video(3, 64, batch=2)
    with torch.no_grad():
        logits = discriminator(x)
    assert logits.shape == patches and not list(discriminator.buffers())
    assert torch.equal(discriminator.eval()(x), logits)  # there are no running statistics


@pytest.mark.parametrize("dims, length, place, frames, side", [(2, 2, (0, 0), 1, 70), (3, 41, (0, 0, 5), 31, 47)])
def test_what_a_patchgan_sees_of_a_video(dims, length, place, frames, side):
    torch.manual_seed(0)
    x = random_video(length, 96).requires_grad_()
    convs = PatchGAN(dims, width=8)
    norms = [
        name for name, module in convs.layers.named_children() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)
    ]
    for name in norms:  # a norm mixes all patches
        convs.layers[int(name)] = nn.Identity()
    logits = convs(x)
    logits[(*place, 5, 5)].backward()
    seen = x.grad[0, 0].abs() > 0
    assert [seen.flatten(1).any(1).sum(), seen.any(0).any(0).sum(), seen.any(0).any(1).sum()] == [frames, side, side]


def test_the_weight_of_the_adversarial_loss_by_finite_differences():
    """Computes both gradients at the last layer of a one-layer decoder, value by value."""
    torch.manual_seed(0)
    features, target = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    judge, weight = torch.randn(2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)

    def nll(w):
        return (features @ w - target).abs().sum()

    def adversarial(w):
        return -((features @ w) @ judge).tanh().mean()

    def gradient_norm(loss):
        total = 0.0
        for index in range(weight.numel()):
            step = torch.zeros(8, dtype=torch.float64)
            step[index] = 1e-6
            total += ((loss(weight + step.view(4, 2)) - loss(weight - step.view(4, 2))) / 2e-6).item() ** 2
        return total**0.5

    live = weight.clone().requires_grad_()
    found = adaptive_weight(nll(live), adversarial(live), live)
    expected = 0.2 * min(gradient_norm(nll) / (gradient_norm(adversarial) + 1e-4), 1e4)
    assert found.item() == pytest.approx(expected, rel=1e-5) and not found.requires_grad
    # With a constant discriminator the weight stays finite.
    assert adaptive_weight(1e9 * nll(live), 0 * adversarial(live), live).item() == pytest.approx(0.2 * 1e4)


def test_gradients_pass_the_discriminator_and_leave_it_alone():
    torch.manual_seed(0)
    discriminator, x = PatchGAN(width=8), random_video(2, 32).requires_grad_()
    loss = unchanged(discriminator, x).mean()
    loss.backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    own = random_video(2, 32).requires_grad_()
    discriminator(own).mean().backward()
    torch.testing.assert_close(x.grad, own.grad)


@pytest.mark.parametrize("name", ["vidtok_kl_causal_488_4chn", "vidtok_fsq_causal_488_4096"])
def test_the_autoencoders_loss_is_the_sum_of_its_parts(name):
    model = small_model(name, ch=8).train()
    discriminator, log_variance, x = PatchGAN(width=8), torch.zeros((), requires_grad=True), random_video(5)
    _, reconstruction, reg_log = model(x)
    parts = autoencoder_losses(
        x, reconstruction, reg_log, log_variance, model.decoder.last_layer, discriminator=discriminator
    )
    regulariser = 1e-6 * reg_log["kl_loss"] if "kl" in name else reg_log["aux_loss"]
    nll = (x - reconstruction).abs().sum() / 5
    judged = torch.log1p((-discriminator(reconstruction).mean((1, 2, 3))).exp()).mean()
    expected = nll + regulariser + parts["adv_weight"] * judged
    torch.testing.assert_close(parts["loss"], expected, rtol=1e-5, atol=1e-4)
    parts["loss"].backward()
    assert log_variance.grad.isfinite() and all(p.grad.isfinite().all() for p in model.parameters())
    without = autoencoder_losses(x, reconstruction, reg_log, log_variance, model.decoder.last_layer)
    assert set(parts) - set(without) == {"loss_adv", "adv_weight"}
    torch.testing.assert_close(without["loss"], nll + regulariser, rtol=1e-5, atol=1e-4)
