"""KL and FSQ against their formulas, written out."""

import itertools
import math

import pytest
import torch

from support.entropy_worker import gap_of_half
from vtok.vidtok.codebook_entropy import entropy_gap
from vtok.vidtok.fsq import FSQ
from vtok.vidtok.kl import KL


def test_kl_is_deterministic_at_evaluation_and_drawn_in_training():
    kl, moments = KL(), torch.randn(2, 3, 4, 4, 8)
    moments[0, 0, 0, 0, 4:] = torch.tensor([-100.0, 100.0, 0.0, 0.0])  # log variances out of range
    z, log = kl.eval()(moments)
    assert torch.equal(z, moments[..., :4])
    mean, log_variance = moments[..., :4], moments[..., 4:].clamp(-30, 20)
    expected = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum() / 2
    torch.testing.assert_close(log["kl_loss"], expected)
    drawn, _ = kl.train()(torch.cat([torch.ones(1, 4000, 1), torch.full((1, 4000, 1), math.log(4.0))], dim=-1))
    assert drawn.mean().item() == pytest.approx(1, abs=0.2) and drawn.std().item() == pytest.approx(2, abs=0.2)
    kl.eval().sample = True
    assert not torch.equal(kl(moments)[0], z)


@pytest.mark.parametrize("levels", [(8, 8, 8, 8), (8, 5, 3, 2)])
def test_fsq_rounds_as_its_formula_says(levels):
    z = 3 * torch.randn(2, 3, 4, 5, len(levels))
    codes, log = FSQ(levels).eval()(z)
    for where in itertools.product(range(2), range(3), range(4), range(5)):
        index, basis = 0, 1
        for d, level in enumerate(levels):
            half, offset = (level - 1) * 1.001 / 2, 0.5 if level % 2 == 0 else 0.0
            bounded = math.tanh(z[where][d].item() + math.atanh(offset / half)) * half - offset
            code = round(bounded)  # half to even
            assert codes[where][d].item() == pytest.approx(code / (level // 2))
            index, basis = index + (code + level // 2) * basis, basis * level
        assert log["indices"][where].item() == index
    assert log["indices"].dtype == torch.int32 and log["aux_loss"] == 0


def test_all_codes_and_indices_are_each_other_s_inverse():
    fsq = FSQ((8, 5, 3, 2))
    indices = torch.arange(fsq.codebook_size)
    codes = fsq.indices_to_codes(indices)
    assert len(codes.unique(dim=0)) == 240 and torch.equal(fsq.codes_to_indices(codes).long(), indices)
    assert not fsq.state_dict()
    torch.testing.assert_close(fsq.quantise(fsq.unbound(codes)), codes)


def test_gradients_pass_through_the_rounding():
    z = torch.randn(1, 2, 2, 2, 3, requires_grad=True)
    fsq = FSQ((8, 8, 8)).eval()
    fsq(z)[0].sum().backward()
    half = 3.5 * 1.001
    expected = half * (1 - torch.tanh(z.detach() + math.atanh(0.5 / half)) ** 2) / 4
    torch.testing.assert_close(z.grad, expected)


def direct_gap(z, levels):
    """Computes the entropy gap from its definition, over the whole codebook."""

    def entropy(p):
        return (-p * p.clamp(min=1e-5).log()).sum(-1)

    codebook = torch.cartesian_prod(*[(torch.arange(level) - level // 2) / (level // 2) for level in levels])
    p = (200 * z @ codebook.T.to(z.dtype)).softmax(-1)
    return entropy(p).mean() - entropy(p.mean(0))


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.1, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("levels", [(8, 8, 8, 8), (8, 8, 5, 3), (8, 8, 8, 8, 8)])
def test_the_factorised_entropy_is_the_direct_one(levels, scale):
    """The clamp in the logarithm matters for small latents: without it the gap is 0.04 off at scale 0.01, 5 levels."""
    drawn = scale * torch.randn(300, len(levels), generator=torch.Generator().manual_seed(0))
    z = drawn.double().requires_grad_()
    exact = z.detach().requires_grad_()
    values = [(torch.arange(level) - level // 2) / (level // 2) for level in levels]
    found, expected = entropy_gap(z, values), direct_gap(exact, levels)
    assert found.item() == pytest.approx(expected.item(), abs=1e-8)
    found.backward(), expected.backward()
    # An omitted code with a probability below 1e-10 would add to the gradient this probability, times the sharpness of
    # 200, times a logarithm of 12 or more, divided by 300 latents. There are many such codes. In a hundred draws of z
    # the worst gradient was 4.1e-8 off, and the worst value 3.9e-10.
    torch.testing.assert_close(z.grad, exact.grad, atol=1e-7, rtol=1e-6)

    single = z.detach().float().requires_grad_()
    rounded = entropy_gap(single, values)
    roundings = len(z) * torch.finfo(torch.float32).eps / 2 * math.log(math.prod(levels))  # a sum of N entropies
    assert rounded.item() == pytest.approx(expected.item(), abs=roundings)
    rounded.backward()
    torch.testing.assert_close(single.grad.double(), exact.grad, atol=1e-5, rtol=1e-3)


def test_the_factorised_entropy_over_262144_codes():
    """The size of the largest published codebook. The direct form takes 2 MB per latent, so there are few latents."""
    levels = (8,) * 6
    z = (0.3 * torch.randn(12, 6)).double().requires_grad_()
    exact = z.detach().requires_grad_()
    values = [(torch.arange(8) - 4) / 4 for _ in levels]
    found, expected = entropy_gap(z, values), direct_gap(exact, levels)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    found.backward(), expected.backward()
    torch.testing.assert_close(z.grad, exact.grad, atol=1e-5, rtol=1e-5)


def test_the_mean_over_ranks_passes_gradients_to_each_of_them(tmp_path):
    """Compares two ranks with half of the latents each to one rank with all."""
    z, levels = 0.3 * torch.randn(8, 3, generator=torch.Generator().manual_seed(2)), (8, 8, 8)
    torch.multiprocessing.spawn(gap_of_half, (tmp_path, z, levels), nprocs=2)
    whole = z.clone().requires_grad_()
    gap = direct_gap(whole, levels)
    gap.backward()
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert sum(value for value, _ in halves).item() / 2 == pytest.approx(gap.item(), abs=1e-5)
    # Engines average gradients over ranks.
    torch.testing.assert_close(torch.cat([grad for _, grad in halves]) / 2, whole.grad, atol=1e-5, rtol=1e-4)


def test_auxiliary_loss_and_its_weights():
    fsq, z = FSQ((8, 8, 8)).train(), torch.randn(1, 2, 4, 4, 3)
    codes = fsq.quantise(z)
    for updates, weight in ((0, 0.3), (500, 0.25), (2000, 0.1), (9000, 0.1)):
        fsq.updates = updates
        expected = weight * direct_gap(z.flatten(0, -2), (8, 8, 8)) + 0.25 * (z - codes).square().mean()
        torch.testing.assert_close(fsq(z)[1]["aux_loss"], expected, atol=1e-5, rtol=0)
