"""The meter: phases of forward and backward, kinds of work, values and shapes on the meta device."""

from functools import partial

import pytest
import torch
from deepspeed.runtime.zero.linear import zero3_linear_wrap
from torch.utils.checkpoint import checkpoint

from pipelines.metering import results
from pipelines.metering.flops import sample_flops
from pipelines.metering.meter import Meter, metered
from pipelines.metering.step import meta_copy
from pipelines.planning.blocks import block_figures, stack_figures
from support.tiny import planned_config
from vtok.assembly.build import build_framework
from vtok.phases import phase
from vtok.video_decoder.hunyuan import Conditioning

META = torch.device("meta")


def weights(*shape):
    return torch.empty(*shape, device=META, requires_grad=True)


# ---------------------------------------------------------------- phases


def test_a_backward_belongs_to_the_phase_of_its_forward():
    first, second, rows = weights(8, 16), weights(16, 32), weights(4, 8)
    with Meter() as meter:
        with phase("one"):
            hidden = rows @ first
        with phase("two"):
            loss = (hidden @ second).sum()
        loss.backward()
    one, two = 2 * 4 * 8 * 16, 2 * 4 * 16 * 32
    flops = {name: used.flops for name, used in meter.usage.items()}
    assert flops == {"one": one, "two": two, "two backward": 2 * two, "one backward": 2 * one}


@pytest.mark.parametrize("name", ["", "a library's own"])
def test_what_follows_a_phase_belongs_to_it_until_the_next(name):
    first, rows = weights(8, 8), weights(4, 8)
    with Meter() as meter:
        with phase("outer"):
            with phase("inner"), torch.profiler.record_function(name):
                rows @ first
            rows @ first
        rows @ first
    product = 2 * 4 * 8 * 8
    assert {name: used.flops for name, used in meter.usage.items()} == {"inner": product, "outer": 2 * product}


def test_a_forward_that_is_repeated_belongs_to_its_own_phase():
    layers, rows = [weights(8, 8) for _ in range(3)], weights(4, 8)
    with Meter() as meter:
        with phase("stack"):
            for layer in layers:
                rows = checkpoint(lambda rows, layer: (rows @ layer).tanh(), rows, layer, use_reentrant=False)
        with phase("head"):
            loss = rows.sum()
        loss.backward()
    product = 2 * 4 * 8 * 8
    assert meter.usage["stack"].flops == 3 * product
    backward = meter.usage["stack backward"]
    assert backward.flops == 3 * 3 * product and backward.recomputed == 3 * product
    assert meter.usage["head backward"].flops == 0


# ---------------------------------------------------------------- kinds of work


def test_attention_is_counted_by_its_kind():
    query, key = weights(1, 4, 10, 8), weights(1, 2, 10, 8)  # two heads of queries to one of keys

    def attention(mask=None):
        out = torch.nn.functional.scaled_dot_product_attention(query, key, key, attn_mask=mask, enable_gqa=True)
        out.sum().backward()

    flops = 2 * 4 * 10 * 10 * (8 + 8)
    work = metered(attention).work
    assert work["attention"] == flops and work["attention_backward"] == 2 * flops
    work = metered(lambda: attention(torch.empty(1, 1, 10, 10, dtype=torch.bool, device=META))).work
    assert work["masked_attention"] == 3 * flops and not work["attention"]


def test_bytes_through_memory():
    a, b = (torch.empty(1000, device=META) for _ in range(2))
    used = metered(lambda: (a + b, a.view(10, 100), torch.zeros(50, device=META), a[:0]))
    assert used.work["memory"] == 3 * 4000 + 200 and used.work["operators"] == 2
    assert metered(lambda: a.mul_(2)).work["memory"] == 2 * 4000


def test_convolutions_have_a_kind_of_their_own():
    convolution = torch.nn.Conv3d(3, 5, 3, device=META)
    work = metered(lambda: convolution(torch.empty(1, 3, 5, 5, 5, device=META))).work
    assert work["convolution"] == 2 * 27 * 3 * 5 * 27 and not work["linear"]


# ---------------------------------------------------------------- values and shapes


def test_values_of_index_tensors_are_known():
    on_host, rows = torch.tensor([3, 1, 2, 1]), weights(4, 8)
    with Meter():
        index = on_host.to(META)
        small = index < 3
        assert index.max().item() == 3 and index.tolist() == [3, 1, 2, 1]
        assert rows[small].shape == (3, 8)
        assert torch.bincount(index, minlength=6).tolist() == [0, 2, 1, 1, 0, 0]
        assert index[small].tolist() == [1, 2, 1]
        index[1:].add_(1)
        assert index.tolist() == [3, 2, 3, 2]
        index.copy_(torch.empty(4, device=META))
        with pytest.raises((RuntimeError, NotImplementedError)):
            index.tolist()


def test_remembered_shapes_are_those_that_torch_computes(monkeypatch):
    """Scalars that are equal but of other types, memory formats and lists of results are told apart."""
    x = torch.empty(2, 3, 4, 4, device=META)
    whole, last = torch.empty(6, dtype=torch.long, device=META), torch.empty(2, 4, 4, 3, device=META)
    pooled = torch.nn.functional.max_pool2d
    calls = [
        lambda: x + 1, lambda: whole + 1, lambda: whole + 1.0, lambda: whole + True, lambda: x * x,
        lambda: last.permute(0, 3, 1, 2) + x, lambda: pooled(x, 2, return_indices=True), lambda: x.sum((1, 2)),
        lambda: torch.nn.functional.layer_norm(x, (4,)), lambda: x.to(torch.bfloat16), lambda: x.topk(2),
    ]  # fmt: skip

    def shapes():
        with Meter():
            return [results.shapes_of(tuple(call()) if isinstance(call(), tuple) else call()) for call in calls]

    expected = [results.shapes_of(tuple(c()) if isinstance(c(), tuple) else c()) for c in calls]
    assert shapes() == expected  # the table is being filled
    monkeypatch.setattr(results, "all_fresh", lambda *_: pytest.fail("not remembered"))
    assert shapes() == expected


# ---------------------------------------------------------------- one layer of many


def test_figures_of_one_layer_tell_of_many(tiny_models):
    """Twelve blocks of the tiny diffusion transformer are two and ten times the third, their first one apart."""
    decoder = meta_copy(planned_config(tiny_models, checkpointing=True).model, "fp32").decoder
    transformer = decoder.transformer
    (block,), rows = transformer.transformer_blocks, weights(1, 9, transformer.config.text_embed_dim)
    noisy = torch.empty(1, *decoder.latent_shape(9, 32, 32), device=META)
    pooled = torch.empty(1, transformer.config.pooled_projection_dim, device=META)

    def forward(depth):
        transformer.transformer_blocks = torch.nn.ModuleList([block] * depth)
        return decoder.velocity(noisy, torch.empty(1, device=META), Conditioning(rows, [9], pooled)).sum()

    two, twelve = (stack_figures(partial(forward, depth)) for depth in (2, 12))
    one = block_figures(partial(forward, 2), partial(forward, 3))
    assert one.forward.flops == one.backward.recomputed > 0
    assert twelve.forward.flops == two.forward.flops + 10 * one.forward.flops
    expected = {kind: two.backward.work[kind] + 10 * amount for kind, amount in one.backward.work.items()}
    assert twelve.backward.work == pytest.approx(expected, rel=0.01)  # sums of gradients are not all alike
    assert twelve.backward.flops == two.backward.flops + 10 * one.backward.flops
    assert twelve.saved == two.saved + 10 * one.saved
    assert twelve.peak == two.peak + 10 * one.peak


def test_a_linear_function_of_zero3_in_torch_s_place_changes_no_count(tiny_models, monkeypatch):
    """ZeRO-3 sets it for the whole process. Its forward runs without gradients, also where checkpointing repeats it."""
    config = planned_config(tiny_models, checkpointing=True)
    framework = build_framework(config.model)
    plain = sample_flops(config, framework)
    monkeypatch.setattr(torch.nn.functional, "linear", zero3_linear_wrap)
    assert sample_flops(config, framework) == plain
    assert plain["language_model"].hardware > plain["language_model"].model
