import pytest
import torch

from vtok.config import VisualHeadConfig
from vtok.feature_scale import FeatureScale
from vtok.flow_matching import integrate
from vtok.sampling import Sampling
from vtok.visual_head import build_visual_head
from vtok.visual_head.cells import dequantise, quantise

KINDS = ("gmm", "mse", "flow", "codes")


def head(kind="gmm", dim=1, **changes):
    torch.manual_seed(0)
    return build_visual_head(
        VisualHeadConfig(kind=kind, **dict(components=3, width=16, depth=2) | changes), hidden_dim=8, dim=dim
    )


def test_the_mixture_is_a_density():
    """exp(-loss) integrates to 1 over a line."""
    hidden = torch.randn(1, 8)
    x = torch.linspace(-12, 12, 20001)
    density = torch.exp(-head().loss(hidden.expand(len(x), -1), x[:, None]))
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-4)


def test_samples_have_the_mixture_s_moments():
    gmm, hidden = head(dim=2), torch.randn(1, 8) * 2
    samples = gmm.sample(hidden.expand(40000, -1), Sampling(1.0), torch.Generator().manual_seed(0))
    log_weight, mean, scale = (p[0] for p in gmm.parameters_of(hidden))
    weight = log_weight.exp()[:, None]
    expected = (weight * mean).sum(0)
    variance = (weight * (scale**2 + mean**2)).sum(0) - expected**2
    torch.testing.assert_close(samples.mean(0), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(samples.var(0), variance, atol=0, rtol=0.05)


def test_temperature_zero_is_the_likeliest_component_s_mean():
    gmm, hidden = head(dim=2), torch.randn(5, 8)
    log_weight, mean, _ = gmm.parameters_of(hidden)
    assert torch.equal(gmm.sample(hidden, Sampling(0.0)), mean[torch.arange(5), log_weight.argmax(-1)])


def test_scale_has_a_floor():
    gmm = head(min_scale=0.5)
    gmm.linear.bias.data[-3:] = -100
    assert gmm.parameters_of(torch.randn(4, 8))[2].min() >= 0.5


def test_regression_is_the_mean_squared_error():
    regression, hidden, target = head("mse", dim=4), torch.randn(3, 8), torch.randn(3, 4)
    expected = (regression.linear(hidden) - target).pow(2).mean(-1)
    torch.testing.assert_close(regression.loss(hidden, target), expected)
    assert torch.equal(regression.sample(hidden, Sampling(1.0)), regression.linear(hidden))


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_still_give_a_gradient_of_zero(kind):
    module = head(kind, dim=4)
    module.loss(torch.randn(0, 8), torch.randn(0, 4), torch.randn(0, module.noise_dim)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_s_loss_and_sample_are_its_own(kind):
    """Rows alone, in a batch, in another order."""
    module, hidden, target = head(kind, dim=4), torch.randn(5, 8), torch.randn(5, 4)
    noise, order = torch.randn(5, module.noise_dim), [3, 0, 4, 1, 2]
    losses = module.loss(hidden, target, noise)
    torch.testing.assert_close(module.loss(hidden[order], target[order], noise[order]), losses[order])
    torch.testing.assert_close(module.loss(hidden[2:3], target[2:3], noise[2:3]), losses[2:3])
    torch.testing.assert_close(module.sample(hidden, Sampling(0.0))[order], module.sample(hidden[order], Sampling(0.0)))
    drawn = [module.sample(hidden, Sampling(1.0), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and (kind == "mse" or not torch.equal(drawn[0], drawn[2]))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_samples_are_fp32_in_a_bf16_model(kind):
    module, hidden, target = head(kind, dim=4).bfloat16(), torch.randn(5, 8).bfloat16(), torch.randn(5, 4)
    loss, sample = module.loss(hidden, target, torch.randn(5, module.noise_dim)), module.sample(hidden, Sampling(1.0))
    assert loss.dtype == sample.dtype == torch.float32
    assert loss.isfinite().all() and sample.isfinite().all()


# ---------------------------------------------------------------- flow


def test_integration_follows_a_gaussian_s_exact_velocity():
    """N(m, s^2): the exact velocity leads noise e to m + s e; the error falls with the square of the steps."""
    m, s = 1.5, 0.3

    def velocity(x, sigma):
        variance = (1 - sigma) ** 2 * s**2 + sigma**2
        surprise = (x - (1 - sigma) * m) / variance
        return sigma * surprise - m - (1 - sigma) * s**2 * surprise

    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    errors = [(integrate(velocity, noise, steps) - (m + s * noise)).abs().max().item() for steps in (16, 32, 64)]
    assert errors[0] < 3e-3  # the default number of steps
    assert errors[0] / errors[1] > 3.5 and errors[1] / errors[2] > 3.5


def test_the_flow_loss_and_its_gradient_against_autograd_by_hand():
    flow, hidden, target = head("flow", dim=3), torch.randn(6, 8, requires_grad=True), torch.randn(6, 3)
    noise = torch.randn(6, 4)
    losses = flow.loss(hidden, target, noise)
    (gradient,) = torch.autograd.grad(losses.sum(), hidden)
    for row in range(6):
        h = hidden[row : row + 1].detach().requires_grad_()
        sigma, eps = torch.sigmoid(noise[row, 0]), noise[row, 1:]
        x = (1 - sigma) * target[row] + sigma * eps
        error = flow.velocity(x[None], sigma.view(1, 1), h)[0] - (eps - target[row])
        expected = (error**2).sum() / 3
        torch.testing.assert_close(losses[row], expected)
        torch.testing.assert_close(gradient[row : row + 1], torch.autograd.grad(expected, h)[0])


def test_a_trained_flow_samples_the_distribution_it_was_shown():
    """Two far modes whose weights depend on the hidden state; the temperature shrinks the spread."""
    flow = head("flow", dim=1, width=64)
    hidden = torch.eye(8)[torch.arange(512) % 2]  # state 0: mode +1 with 80 %, state 1: with 20 %
    optimiser = torch.optim.Adam(flow.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(500):
        up = torch.rand(512, generator=generator) < torch.where(hidden[:, 0] > 0, 0.8, 0.2)
        target = torch.where(up, 1.0, -1.0)[:, None] + 0.2 * torch.randn(512, 1, generator=generator)
        optimiser.zero_grad()
        flow.loss(hidden, target, torch.randn(512, 2, generator=generator)).mean().backward()
        optimiser.step()
    with torch.no_grad():
        samples = flow.sample(torch.eye(8)[:2].repeat(2000, 1), Sampling(1.0), generator).view(2000, 2)
        cold = flow.sample(torch.eye(8)[:2].repeat(2000, 1), Sampling(0.2), generator).view(2000, 2)
    share = (samples > 0).float().mean(0)
    torch.testing.assert_close(share, torch.tensor([0.8, 0.2]), atol=0.06, rtol=0)
    near = (samples.abs() - 1).abs() < 0.6
    assert near.float().mean() > 0.9
    assert (cold.std(0) < 0.7 * samples.std(0)).all()


# ---------------------------------------------------------------- codes


def test_codes_are_a_distribution_and_equally_likely_cells():
    """The probabilities of all codes add up to 1; on normal features each of the 32 codes is used alike."""
    codes, hidden = head("codes", levels=32), torch.randn(1, 8)
    values = dequantise(torch.arange(32), 32)
    assert torch.equal(quantise(values, 32), torch.arange(32))
    total = torch.exp(-codes.loss(hidden.expand(32, -1), values[:, None])).sum()
    assert total.item() == pytest.approx(1, abs=1e-5)

    normal = torch.randn(200000, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(quantise(normal, 32), minlength=32) / len(normal)
    torch.testing.assert_close(share, torch.full((32,), 1 / 32), atol=0, rtol=0.05)
    error = (dequantise(quantise(normal, 32), 32) - normal).square().mean().sqrt()
    assert error.item() == pytest.approx(0.097, abs=0.003)  # as the head's docstring says


def test_sampled_codes_follow_their_probabilities():
    codes, hidden = head("codes", dim=2, levels=4), torch.randn(1, 8)
    values = dequantise(torch.arange(4), 4)
    for temperature in (1.0, 0.5):
        drawn = codes.sample(hidden.expand(20000, -1), Sampling(temperature), torch.Generator().manual_seed(0))
        share = torch.stack([(drawn == value).float().mean(0) for value in values], dim=-1)
        torch.testing.assert_close(share, (codes.logits(hidden)[0] / temperature).softmax(-1), atol=0.015, rtol=0)
    assert torch.equal(codes.sample(hidden, Sampling(0.0)), values[codes.logits(hidden).argmax(-1)])


def test_the_codes_loss_is_the_mean_cross_entropy():
    codes, hidden, target = head("codes", dim=3, levels=8), torch.randn(5, 8), torch.randn(5, 3)
    probabilities = codes.logits(hidden).softmax(-1)
    chosen = probabilities.gather(-1, quantise(target, 8)[..., None])[..., 0]
    torch.testing.assert_close(codes.loss(hidden, target), -chosen.log().mean(-1))


# ---------------------------------------------------------------- scale


def test_feature_scale_round_trip():
    scale, x = FeatureScale(3), torch.randn(100, 3) * 5 + 2
    scale.set(x.mean(0), x.std(0))
    standardised = scale.standardise(x)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(scale.restore(standardised), x)
    scale.set(torch.zeros(3), torch.zeros(3))
    assert scale.standardise(x).isfinite().all()
