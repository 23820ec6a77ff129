"""What ZeRO-3's hooks cost the host: they do as DeepSpeed's own, with less work."""

import inspect
import json

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pipelines.engine.internals import listed_once, where_gradients_pass, where_weights_are_saved, without_signature
from support.launch import REPO, checked


class Scaled(torch.autograd.Function):
    """x * weight, with a ``setup_context`` like DeepSpeed's functions; the weight has no gradient."""

    @staticmethod
    def forward(x, weight=None):
        return x.detach() * weight

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[1], None


def test_a_function_without_signature_computes_the_same(monkeypatch):
    x, weight, asked = torch.randn(3, requires_grad=True), torch.randn(3), []
    own = inspect.signature
    monkeypatch.setattr(inspect, "signature", lambda *args, **options: asked.append(args) or own(*args, **options))
    found = []
    for function in (Scaled, without_signature(Scaled)):
        asked.clear()
        output = function.apply(x, weight)
        (gradient,) = torch.autograd.grad(output.sum(), x)
        found.append((output, gradient, len(asked)))
    (output, gradient, asks), (lean, lean_gradient, lean_asks) = found
    assert torch.equal(output, lean) and torch.equal(gradient, lean_gradient)
    assert asks == 1 and lean_asks == 0


def test_hooks_leave_tensors_without_a_gradient_as_they_are():
    class Watched(torch.autograd.Function):
        seen: list[str] = []

        @staticmethod
        def forward(x):
            return x.detach()

        @staticmethod
        def setup_context(ctx, inputs, output):
            Watched.seen.append("forward")

        @staticmethod
        def backward(ctx, gradient):
            Watched.seen.append("backward")
            return gradient

    hook, constant, variable = where_gradients_pass(Watched), torch.ones(2), torch.ones(2, requires_grad=True)
    assert hook.apply(constant) is constant
    with torch.no_grad():
        assert hook.apply(variable) is variable
    assert Watched.seen == []
    hook.apply(variable).sum().backward()
    assert Watched.seen == ["forward", "backward"] and variable.grad.tolist() == [1, 1]


def test_parameters_are_listed_once_but_those_of_other_modules_each_time(monkeypatch):
    module, other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False)), nn.Parameter(torch.ones(1))
    module._external_params = {}
    assert list(listed_once(module)) == []
    whole = list(listed_once(module, recurse=True))
    assert list(map(id, whole)) == list(map(id, module.parameters()))
    monkeypatch.setattr(nn.Module, "named_parameters", lambda *_, **__: pytest.fail("listed again"))
    module._external_params[id(other)] = other
    assert list(map(id, listed_once(module, recurse=True))) == [*map(id, whole), id(other)]


def test_a_micro_step_inspects_no_signature_and_hooks_only_whole_units(ranks, tiny_models):
    """On two ranks. With DeepSpeed's own it was 482 signatures, 415 lists of parameters, and 177 modules with hooks."""
    result = checked(ranks.run(REPO / "tests/support/hooks_worker.py", tiny_models))
    found = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))
    assert found["signatures"] == 0
    assert found["listings"] <= 4
    inside = ("layers.0.", "blocks.0.", "context_embedder.", "time_text_embed.")
    assert found["hooked"] and not [name for name in found["hooked"] if any(part in name for part in inside)]


def test_a_linear_layer_is_torch_s_own_unless_its_weight_would_be_kept():
    """That is without gradients and under gradient checkpointing. The results are the same."""
    calls = []

    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(x, weight, bias):
            calls.append(1)
            return x @ weight.t() + bias

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs[:2])

        @staticmethod
        def backward(ctx, gradient):
            x, weight = ctx.saved_tensors
            return gradient @ weight, gradient.t() @ x, gradient.sum(0)

    layer, x = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    given = x, layer.weight, layer.bias
    apply = where_weights_are_saved(Linear).apply
    with torch.no_grad():
        found = [apply(*given)]
    assert calls == []
    found += [checkpoint(apply, *given, use_reentrant=False), apply(*given)]
    assert calls == [1]
    expected = nn.functional.linear(*given)
    gradients = [torch.autograd.grad(made.square().sum(), given) for made in (*found[1:], expected)]
    for made in found:
        torch.testing.assert_close(made, expected)
    for own in gradients[:2]:
        torch.testing.assert_close(own, gradients[2])
    assert calls == [1]
