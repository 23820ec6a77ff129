"""The frozen transformer in fp8: what it costs in accuracy, where its codes come from, and what a plan says of it."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers import HunyuanVideoTransformer3DModel
from torch import nn

from pipelines.engine import weights
from pipelines.metering.kinds import FP8, LINEAR
from pipelines.metering.step import measure_step, meta_copy
from pipelines.metering.workload import typical_workload
from pipelines.planning.memory import parameters_of
from support.launch import REPO, checked
from support.tiny import fp8_config, imagined, make_batch, model_config, planned_config, wan_config
from vtok import fp8
from vtok.assembly import build
from vtok.assembly.build import build_framework
from vtok.assembly.pretrained import from_pretrained, save_pretrained
from vtok.config import ConfigError, DecoderConfig, LoraConfig
from vtok.fp8 import Fp8Linear, codes_of, expanded, rounded, scales_of, use_fp8
from vtok.pipeline import VTokPipeline
from vtok.weights.precision import cast_parameters

FORMS = ("weights", "dynamic")
# The least cosine of the gradient on the conditioning with that of bf16 weights, by form. e4m3 has four significant
# bits: a rounded weight is wrong by 2.6 % (root mean square), so one product's cosine is 0.9997.
COSINE = {"weights": 0.998, "dynamic": 0.996}
LOSS = 2e-3  # the largest relative difference of L_dec
# Of two blocks of the published width, with outliers among the weights and without.
REAL_COSINE, REAL_LOSS = 0.993, 0.015


@pytest.fixture
def as_on_hopper(monkeypatch):
    """torch's fp8 product runs on a CPU too; the settings are refused there, for it gains nothing."""
    monkeypatch.setattr(build, "require_fp8", lambda form: None)


def cosine(one, other):
    return F.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0).item()


def decoder_loss(framework):
    """L_dec of a batch, and its gradient on the conditioning."""
    given, velocity = [], framework.decoder.velocity

    def noted(noisy, sigma, conditioning):
        rows = getattr(conditioning, "rows", conditioning)
        rows.retain_grad()
        given.append(rows)
        return velocity(noisy, sigma, conditioning)

    framework.decoder.velocity = noted
    loss = framework(make_batch(framework))["loss_dec"]
    loss.backward()
    return loss.item(), given[0].grad.float()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("base", [model_config, wan_config])
def test_loss_and_gradient_are_close_to_those_of_bf16(tiny_models, as_on_hopper, base, form):
    found = []
    for config in (base(tiny_models), fp8_config(tiny_models, form, base)):
        torch.manual_seed(0)
        framework = build_framework(config).train()
        cast_parameters(framework, torch.bfloat16)
        found.append(decoder_loss(framework))
    (loss, gradient), (rounded_loss, rounded_gradient) = found
    assert sum(isinstance(module, Fp8Linear) for module in framework.modules()) >= 17
    assert rounded_loss != loss and rounded_loss == pytest.approx(loss, rel=LOSS)
    assert COSINE[form] < cosine(gradient, rounded_gradient) < 1


@pytest.mark.long
@pytest.mark.parametrize("outliers", [1, 20])
def test_a_double_and_a_single_block_of_the_published_width_are_close(outliers):
    """HunyuanVideo's 3072 with 24 heads, in fp32; every 1009th of the random weights may be 20 times larger. 3 GB."""
    torch.manual_seed(0)
    with torch.device("meta"):
        transformer = HunyuanVideoTransformer3DModel(
            num_layers=1, num_single_layers=1, num_refiner_layers=1, text_embed_dim=256, pooled_projection_dim=64
        )
    transformer = transformer.to_empty(device="cpu").requires_grad_(False).eval()
    for name, parameter in transformer.named_parameters():
        if parameter.dim() >= 2:
            parameter.normal_(0, 0.02).view(-1)[::1009].mul_(outliers)
        else:
            parameter.fill_(float(name.endswith("weight")))
    latents, rows, pooled = (torch.randn(*shape) for shape in ((1, 16, 3, 8, 8), (1, 12, 256), (1, 64)))
    target, sigma, guidance = torch.randn(1, 16, 3, 8, 8), torch.tensor([500.0]), torch.tensor([6000.0])

    def loss_and_gradient():
        given = rows.clone().requires_grad_()
        made = transformer(latents, sigma, given, torch.ones(1, 12), pooled, guidance, return_dict=False)[0]
        loss = (made - target).square().mean()
        return loss.item(), torch.autograd.grad(loss, given)[0]

    loss, gradient = loss_and_gradient()
    stacks = nn.ModuleList([transformer.transformer_blocks, transformer.single_transformer_blocks])
    stored = {name: layer.weight for name, layer in stacks.named_modules() if isinstance(layer, nn.Linear)}
    use_fp8(stacks, "weights")
    layers = {name: layer for name, layer in stacks.named_modules() if isinstance(layer, Fp8Linear)}
    assert layers.keys() == stored.keys()
    for name, layer in layers.items():
        codes, layer.weight_scale.data = rounded(stored.pop(name))
        layer.weight.data = codes.view(torch.uint8)
    for form in FORMS:
        for layer in layers.values():
            layer.form = form
        rounded_loss, rounded_gradient = loss_and_gradient()
        print(form, outliers, rounded_loss / loss - 1, cosine(gradient, rounded_gradient))
        assert rounded_loss == pytest.approx(loss, rel=REAL_LOSS)
        assert REAL_COSINE < cosine(gradient, rounded_gradient) < 1


def test_a_layer_and_its_gradient_are_those_of_the_rounded_weight():
    """Exactly in one form; in the other up to the rounding of the inputs."""
    torch.manual_seed(0)
    linear, x, gradient = nn.Linear(48, 32), torch.randn(2, 20, 48, requires_grad=True), torch.randn(2, 20, 32)
    codes, scale = rounded(linear.weight.detach())
    weight = expanded(codes.view(torch.uint8), scale, torch.float32)
    assert (weight - linear.weight).abs().max() <= linear.weight.abs().max() / 16
    expected = F.linear(x, weight, linear.bias)
    (wanted,) = torch.autograd.grad(expected, x, gradient)
    for form, error in (("weights", 1e-6), ("dynamic", 0.05)):
        layer = Fp8Linear(linear, form)
        layer.weight.data, layer.weight_scale.data = codes.view(torch.uint8), scale
        out = layer(x)
        (found,) = torch.autograd.grad(out, x, gradient)
        for one, other in ((out, expected), (found, wanted)):
            assert (one - other).norm() <= error * other.norm(), form
        assert (out - expected).norm() > 0 or form == "weights"


def test_slices_of_codes_are_those_of_the_whole(monkeypatch):
    """A rank's slice may begin and end within a row; rows of zeros have codes of zero."""
    torch.manual_seed(0)
    matrix = torch.randn(7, 5)
    matrix[3] = 0
    codes, scale = rounded(matrix)
    assert torch.equal(expanded(codes.view(torch.uint8), scale, torch.float32)[3], torch.zeros(5))

    def read(flat, start):
        flat.copy_(matrix.view(-1)[start : start + len(flat)])

    for piece in (1, 11, 1000):
        monkeypatch.setattr(fp8, "PIECE", piece)
        for start, stop in ((0, 35), (3, 17), (10, 15), (34, 35), (20, 20)):
            part = torch.empty(stop - start, dtype=torch.uint8)
            codes_of(read, 5)(part, start)
            assert torch.equal(part, codes.view(torch.uint8).view(-1)[start:stop]), (piece, start)
        rows = torch.empty(4)
        scales_of(read, 5)(rows, 2)
        assert torch.equal(rows, scale[2:6])


@pytest.mark.slow
def test_shards_are_rounded_like_the_whole_and_half_as_large(ranks, tiny_models):
    """Each rank rounds its own slices; gradients are those of one process, under ZeRO-3, hpZ, offload and ZeRO-2."""
    worker = REPO / "tests/support/fp8_worker.py"
    configs = ("zero3.json", "zero2.json", "zero3_offload.json", "zero3_hpz.json")
    assert checked(ranks.run(worker, tiny_models, *configs)).stdout.count("FP8 PARTS ROUNDED") == 2


def test_an_export_reads_its_decoder_in_fp8_again_and_makes_the_same_video(tiny_models, tmp_path):
    torch.manual_seed(0)
    framework = build_framework(fp8_config(tiny_models)).eval()
    save_pretrained(framework, tmp_path / "export")
    again = from_pretrained(tmp_path / "export").eval()
    assert json.loads((tmp_path / "export/vtok_config.json").read_text())["decoder"]["fp8"] == "weights"
    videos = []
    for own in (framework, again):
        conditioning = imagined(own, "A red circle.", 19, generator=torch.Generator().manual_seed(0))
        videos.append(own.decoder.sample(conditioning, 5, 2, torch.Generator().manual_seed(0)))
    assert torch.equal(*videos) and videos[0].float().std() > 0
    in_bf16 = VTokPipeline.from_pretrained(tmp_path / "export", dtype=torch.bfloat16).framework.decoder.transformer
    layer = next(module for module in in_bf16.modules() if isinstance(module, Fp8Linear))
    assert (layer.weight.dtype, layer.weight_scale.dtype) == (torch.uint8, torch.float32)
    assert layer.bias.dtype == in_bf16.dtype == torch.bfloat16


def test_the_second_expert_is_rounded_too(tiny_models):
    """Wan's experts are read into the same layers in turn."""
    experts = partial(wan_config, weights="wan_experts", expert="high_noise")
    decoder = build_framework(fp8_config(tiny_models, base=experts)).decoder
    low = partial(wan_config, weights="wan_experts", expert="low_noise")
    expected = build_framework(fp8_config(tiny_models, base=low)).decoder.transformer.state_dict()
    decoder.load_expert("low_noise")
    for name, value in decoder.transformer.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_the_plan_counts_bytes_and_products_by_their_kind(tiny_models):
    """What checkpointing repeats is counted apart, as without fp8."""
    sizes, works = [], []
    for config in (model_config(tiny_models), *(fp8_config(tiny_models, form) for form in FORMS)):
        config.decoder.gradient_checkpointing = True
        framework = meta_copy(config, "bf16")
        frozen = [p for p in parameters_of(framework) if p.part == "diffusion_transformer"]
        sizes.append(sum(p.size * (p.own_width or 2) for p in frozen))
        works.append(products(framework))
    layers = [module for module in framework.modules() if isinstance(module, Fp8Linear)]
    codes, scales = (sum(getattr(layer, name).numel() for layer in layers) for name in ("weight", "weight_scale"))
    assert sizes[1] == sizes[2] == sizes[0] - codes + 4 * scales
    plain, expanding, dynamic = works
    for all_kinds, kinds, of_fp8 in zip(plain, expanding, dynamic):
        assert all_kinds == kinds and all_kinds[FP8] == 0 < of_fp8[FP8]
        assert of_fp8[LINEAR] + of_fp8[FP8] == all_kinds[LINEAR]


def products(framework):
    """FLOPs of the products in the transformer's forward and backward, by kind; and of those that are repeated."""
    config = planned_config("unused")
    config.model = framework.config
    usage = measure_step(framework, typical_workload(config, framework, 2)).usage
    phases = [usage["diffusion_transformer"], usage["diffusion_transformer backward"]]
    return [
        {kind: sum(getattr(phase, what)[kind] for phase in phases) for kind in (LINEAR, FP8)}
        for what in ("work", "repeated")
    ]


@pytest.mark.parametrize("key", ["zero_quantized_weights", "zero_quantized_nontrainable_weights"])
def test_deepspeed_s_own_quantisation_of_codes_is_refused(monkeypatch, key):
    monkeypatch.setattr(weights.deepspeed.zero, "Init", lambda **_: SimpleNamespace(local_device="cpu"))
    place = weights.placement({"zero_optimization": {"stage": 3, key: True}}, torch.bfloat16)
    codes = nn.Parameter(torch.empty(4, dtype=torch.uint8, device="meta"), requires_grad=False)
    with pytest.raises(ConfigError, match=f"zero_optimization.{key} cannot quantise fp8 weights again"):
        place(codes, lambda flat, start: None, False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_cannot_be_is_one_line(tiny_models):
    with pytest.raises(ConfigError, match="decoder.fp8 dynamic needs a GPU with fp8 products .* set it to weights"):
        build_framework(fp8_config(tiny_models, "dynamic"))
    with pytest.raises(ConfigError, match="decoder.fp8 and decoder.lora exclude each other"):
        DecoderConfig(fp8="weights", lora=LoraConfig())
