import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipelines.metering.meter import Meter
from support.live_memory import LiveMemory
from vtok.mllm.language_head import CHUNK, LanguageHead
from vtok.phases import phase


def gradients(loss, head, states, weights):
    (loss * weights).sum().backward()
    found = head.weight.grad, states.grad
    head.weight.grad = states.grad = None
    return found


@pytest.mark.parametrize("count", [0, 1, CHUNK, 2 * CHUNK + 3])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_loss_in_chunks_is_the_plain_one_in_value_and_gradient(count, dtype, tolerance):
    """Each position with an upstream gradient of its own, as the mean over each clip's own tokens gives it."""
    plain = nn.Linear(32, 301, bias=False, dtype=dtype)
    head = LanguageHead.of(plain)
    states = torch.randn(count, 32, dtype=dtype, requires_grad=True)
    targets, weights = torch.randint(301, (count,)), torch.rand(count)
    expected = F.cross_entropy(plain(states).float(), targets, reduction="none")
    losses = head(states, targets)
    assert head.weight is plain.weight and torch.equal(head(states), plain(states))
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    for ours, reference in zip(gradients(losses, head, states, weights), gradients(expected, plain, states, weights)):
        torch.testing.assert_close(ours, reference, atol=tolerance, rtol=tolerance)


def test_logits_of_one_chunk_at_a_time_are_in_memory():
    """Peak of forward and backward, less the gradients that are asked for; it does not grow with the positions."""
    vocabulary, dim = 8192, 16
    head = LanguageHead.of(nn.Linear(dim, vocabulary, bias=False))
    peaks = []
    for count in (2 * CHUNK, 8 * CHUNK):
        states, targets = torch.randn(count, dim, requires_grad=True), torch.randint(vocabulary, (count,))
        with LiveMemory([states, targets, head.weight]) as memory:
            head(states, targets).sum().backward()
        head.weight.grad = None
        peaks.append(memory.peak)
    fp32_logits = CHUNK * vocabulary * 4
    assert peaks[1] < 3.5 * fp32_logits
    assert peaks[1] - peaks[0] < fp32_logits / 10


def test_the_repeated_product_is_counted_as_repeated():
    product = 2 * 300 * 16 * 64
    head = LanguageHead.of(nn.Linear(16, 64, bias=False))
    states = torch.randn(300, 16, requires_grad=True)
    with Meter("cpu") as meter:
        with phase("head"):
            loss = head(states, torch.randint(64, (300,))).sum()
        loss.backward()
    assert meter.usage["head"].flops == meter.usage["head backward"].recomputed == product
    assert meter.usage["head backward"].flops == 3 * product
