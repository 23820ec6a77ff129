"""Packed rows in one call of a kernel for rows of unequal length: which kernel is taken, and that nothing changes.

The kernels run on GPUs only. Here a stand-in with torch's signature takes their place.
"""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from support.tiny import make_batch
from vtok.mllm import packed_attention, varlen
from vtok.mllm.packed_attention import packed_sdpa
from vtok.mllm.varlen import installed_kernel, kernel_for, of_flash_attn, of_torch, row_bounds

# Row lengths and the shared row: rows alone; rows after a shared prefix; a prefix behind other rows.
PACKINGS = [([5, 1, 9], None), ([3, 4, 6], 0), ([4, 3, 5, 2], 1)]


@pytest.fixture
def calls():
    """The calls of the stand-ins."""
    return []


def attend(q, k, v, bounds, causal, scale):
    """(L, heads, d) row by row, as the kernels are documented."""
    rows = []
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist()):
        own = [x[start:stop].transpose(0, 1) for x in (q, k, v)]
        grouped = q.shape[1] != k.shape[1]
        rows.append(F.scaled_dot_product_attention(*own, is_causal=causal, scale=scale, enable_gqa=grouped))
    return torch.cat([row.transpose(0, 1) for row in rows])


@pytest.fixture
def torchs(calls):
    def varlen_attn(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
    ):
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and torch.equal(cu_seq_q, cu_seq_k)
        assert max_q == max_k == cu_seq_q.diff().max() and cu_seq_q[-1] == len(query) == len(key)
        assert enable_gqa == (query.shape[1] != key.shape[1])
        calls.append("torch")
        return attend(query, key, value, cu_seq_q, window_size == (-1, 0), scale)

    return varlen_attn


@pytest.fixture
def flash_attn(calls):
    def flash_attn_varlen_func(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale=None, causal=False
    ):
        calls.append("flash-attn")
        return attend(q, k, v, cu_seqlens_q, causal, softmax_scale)

    return flash_attn_varlen_func


@pytest.mark.parametrize("lengths, shared", PACKINGS)
def test_one_call_gives_outputs_and_gradients_of_the_rows_alone(
    monkeypatch, torchs, flash_attn, calls, lengths, shared
):
    torch.manual_seed(0)
    inputs = [torch.randn(1, heads, sum(lengths), 8, requires_grad=True) for heads in (4, 2, 2)]
    module = SimpleNamespace(is_causal=True, num_key_value_groups=2, training=True)

    def run():
        out, weights = packed_sdpa(module, *inputs, None, row_lengths=lengths, shared_row=shared, scaling=0.3)
        assert weights is None and out.shape == (1, sum(lengths), 4, 8)
        return [out, *torch.autograd.grad(out.square().sum(), inputs)]

    expected = run()
    assert calls == []
    for kernel in (of_torch(torchs), of_flash_attn(flash_attn)):
        monkeypatch.setattr(packed_attention, "kernel_for", lambda query, kernel=kernel: kernel)
        for found, wanted in zip(run(), expected):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert calls == ["torch", "flash-attn"]


def test_the_framework_s_losses_are_the_same_with_one_call_a_layer(framework, monkeypatch, torchs, calls):
    batch = make_batch(framework)
    expected = {name: value.item() for name, value in framework(batch).items()}
    monkeypatch.setattr(packed_attention, "kernel_for", lambda query: of_torch(torchs))
    assert {name: value.item() for name, value in framework(batch).items()} == pytest.approx(expected, rel=1e-5)
    assert len(calls) == framework.mllm.causal_lm.config.num_hidden_layers


def test_the_kernel_is_torch_s_then_flash_attn_s_then_none(monkeypatch, torchs, flash_attn, calls):
    """An older torch's, without grouped heads, is left."""

    def older(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False):
        raise AssertionError

    inputs = [torch.randn(4, 2, 8) for _ in range(3)]
    for present, chosen in (
        ({"varlen_attn": torchs, "flash_attn_varlen_func": flash_attn}, "torch"),
        ({"varlen_attn": older, "flash_attn_varlen_func": flash_attn}, "flash-attn"),
        ({"flash_attn_varlen_func": flash_attn}, "flash-attn"),
        ({}, None),
    ):
        monkeypatch.setattr(varlen, "function_of", lambda module, name, present=present: present.get(name))
        kernel = installed_kernel.__wrapped__()
        assert (kernel is None) == (chosen is None)
        if kernel is not None:
            kernel(*inputs, row_bounds([1, 3], torch.device("cpu")), 3, None)
            assert calls.pop() == chosen


def test_what_is_not_installed_is_not_found(monkeypatch):
    assert varlen.function_of("no_such_package", "f") is varlen.function_of("no_such_package.inside", "f") is None
    assert varlen.function_of("torch.nn.no_such_module", "f") is varlen.function_of("torch.nn", "no_such") is None
    assert varlen.function_of("torch.nn.functional", "linear") is F.linear
    assert "flash_attn" not in sys.modules


def test_only_a_gpu_in_half_precision_has_a_kernel():
    """The host, fp32 and the meta device of plans run rows one by one."""
    for dtype, device in ((torch.bfloat16, "cpu"), (torch.float32, "cpu"), (torch.bfloat16, "meta")):
        assert kernel_for(torch.empty(1, dtype=dtype, device=device)) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("lengths, shared", PACKINGS)
def test_the_gpu_s_kernel_gives_what_rows_alone_give(monkeypatch, lengths, shared):
    torch.manual_seed(0)
    inputs = [
        torch.randn(1, heads, sum(lengths), 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for heads in (4, 2, 2)
    ]
    module = SimpleNamespace(is_causal=True, num_key_value_groups=2, training=True)
    assert kernel_for(inputs[0]) is not None

    def run():
        out = packed_sdpa(module, *inputs, None, row_lengths=lengths, shared_row=shared)[0]
        return [out, *torch.autograd.grad(out.float().square().sum(), inputs)]

    found = run()
    monkeypatch.setattr(packed_attention, "kernel_for", lambda query: None)
    for one, other in zip(found, run()):
        torch.testing.assert_close(one, other, atol=2e-2, rtol=2e-2)
