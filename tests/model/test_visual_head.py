import pytest
import torch

from vtok.config import VisualHeadConfig
from vtok.visual_head import FeatureScale, build_visual_head


def head(kind="gmm", dim=1, **changes):
    torch.manual_seed(0)
    return build_visual_head(VisualHeadConfig(kind=kind, components=3, **changes), hidden_dim=8, dim=dim)


def test_the_mixture_is_a_density():
    """exp(-loss) integrates to 1 over a line."""
    hidden = torch.randn(1, 8)
    x = torch.linspace(-12, 12, 20001)
    density = torch.exp(-head().loss(hidden.expand(len(x), -1), x[:, None]))
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-4)


def test_samples_have_the_mixture_s_moments():
    gmm, hidden = head(dim=2), torch.randn(1, 8) * 2
    samples = gmm.sample(hidden.expand(40000, -1), 1.0, torch.Generator().manual_seed(0))
    log_weight, mean, scale = (p[0] for p in gmm.parameters_of(hidden))
    weight = log_weight.exp()[:, None]
    expected = (weight * mean).sum(0)
    variance = (weight * (scale**2 + mean**2)).sum(0) - expected**2
    torch.testing.assert_close(samples.mean(0), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(samples.var(0), variance, atol=0, rtol=0.05)


def test_temperature_zero_is_the_likeliest_component_s_mean():
    gmm, hidden = head(dim=2), torch.randn(5, 8)
    log_weight, mean, _ = gmm.parameters_of(hidden)
    assert torch.equal(gmm.sample(hidden, 0.0), mean[torch.arange(5), log_weight.argmax(-1)])


def test_scale_has_a_floor():
    gmm = head(min_scale=0.5)
    gmm.linear.bias.data[-3:] = -100
    assert gmm.parameters_of(torch.randn(4, 8))[2].min() >= 0.5


def test_regression_is_the_mean_squared_error():
    regression, hidden, target = head("mse", dim=4), torch.randn(3, 8), torch.randn(3, 4)
    expected = (regression.linear(hidden) - target).pow(2).mean(-1)
    torch.testing.assert_close(regression.loss(hidden, target), expected)
    assert torch.equal(regression.sample(hidden, 1.0), regression.linear(hidden))


@pytest.mark.parametrize("kind", ["gmm", "mse"])
def test_no_rows_still_give_a_gradient_of_zero(kind):
    module = head(kind, dim=4)
    module.loss(torch.randn(0, 8), torch.randn(0, 4)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in module.parameters())


def test_feature_scale_round_trip():
    scale, x = FeatureScale(3), torch.randn(100, 3) * 5 + 2
    scale.set(x.mean(0), x.std(0))
    standardised = scale.standardise(x)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(scale.restore(standardised), x)
    scale.set(torch.zeros(3), torch.zeros(3))
    assert scale.standardise(x).isfinite().all()
