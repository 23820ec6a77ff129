"""``train.deterministic`` on a GPU: no operator of a step is one that torch refuses there.

``torch.use_deterministic_algorithms`` refuses on CUDA what its documentation lists, and what the sources of its CUDA
kernels name in ``alertNotDeterministic`` in any of the versions that we allow (nll_loss2d: in some). The operators of a
step do not depend on the device. Attention is the exception; each of its kernels has a deterministic form.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from support.tiny import CAPTIONS, make_batch, model_config, qwen_config, wan_config, with_strategy
from vtok.assembly.build import build_framework
from vtok.assembly.tiny import write_tiny_models
from vtok.config import VisualHeadConfig
from vtok.generation import generate
from vtok.tokeniser.key_frame import detect_key_frame

ALWAYS = {
    "avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward", "fractional_max_pool2d_backward", "fractional_max_pool3d_backward",
    "max_unpool2d", "max_unpool3d", "upsample_linear1d_backward", "upsample_bilinear2d_backward",
    "_upsample_bilinear2d_aa_backward", "upsample_bicubic2d_backward", "_upsample_bicubic2d_aa_backward",
    "upsample_trilinear3d_backward", "reflection_pad1d_backward", "reflection_pad2d_backward",
    "reflection_pad3d_backward", "nll_loss2d_forward", "nll_loss2d_backward", "_ctc_loss_backward",
    "_embedding_bag_dense_backward", "put", "put_", "histc", "grid_sampler_2d_backward", "grid_sampler_3d_backward",
    "kthvalue", "index_reduce", "index_reduce_",
}  # fmt: skip


def refused(function, args: tuple, options: dict) -> bool:
    """Whether torch would refuse a call on a GPU."""
    name = function.overloadpacket.__name__
    if name in ("median", "nanmedian"):
        return "dim" in function._overloadname  # with indices
    if name in ("cumsum", "cumsum_"):
        return options.get("dtype", args[0].dtype).is_floating_point
    if name == "bincount":
        return any(isinstance(x, Tensor) for x in (*args[1:], options.get("weights")))
    if name.startswith("scatter_reduce"):
        return "prod" in (*args, options.get("reduce"))
    return name in ALWAYS


class Refused(TorchDispatchMode):
    """Names of what would be refused, and how many operators were seen."""

    def __init__(self):
        super().__init__()
        self.names, self.seen = set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen += 1
        if refused(func, args, kwargs or {}):
            self.names.add(str(func))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.median(0), lambda x: x.cumsum(0), lambda x: x.nanmedian(dim=1),
        lambda x: x.long().bincount(x), lambda x: x.scatter_reduce(0, x.long(), x, "prod"),
        lambda x: torch.nn.functional.adaptive_avg_pool2d(x.requires_grad_()[None, None, None].repeat(1, 1, 4, 1), 2)
        .sum().backward(),
        lambda x: torch.histc(x),
    ],
)  # fmt: skip
def test_what_torch_refuses_is_recognised(call):
    x = torch.rand(4)
    with Refused() as found:
        try:
            call(x)
        except IndexError:
            call(x[None].repeat(2, 1))
    assert len(found.names) == 1


def test_what_torch_allows_is_not_taken_for_refused():
    x = torch.rand(4)
    with Refused() as found:
        x.median(), x.long().cumsum(0), x.long().bincount(), x.sort(), x.scatter_reduce(0, x.long(), x, "sum")
        torch.nn.functional.cross_entropy(torch.rand(3, 4, requires_grad=True), torch.tensor([0, 1, 2])).backward()
    assert not found.names and found.seen > 5


def configurations(models):
    """Of every decoder, language model, strategy and visual head."""
    base = model_config(models)
    wan = wan_config(models)
    yield "detect", replace(base, tokeniser=replace(base.tokeniser, key_frame_idx="detect"))
    yield "residual grid", replace(base, tokeniser=replace(base.tokeniser, residual_grid=2))
    yield "frames", replace(base, tokeniser=replace(base.tokeniser, strategy="frames", sampled_frames=3))
    yield "training_free", replace(base, tokeniser=replace(base.tokeniser, strategy="training_free"))
    for name in ("video-lavit", "omnitokenizer"):
        yield name, with_strategy(base, models, strategy=name)
    for kind in ("gmm", "mse", "flow", "codes"):
        yield kind, replace(base, visual_head=VisualHeadConfig(kind, steps=2))
    yield "wan", replace(wan, decoder=replace(wan.decoder, gradient_checkpointing=True, true_guidance=2.0))
    yield "qwen", qwen_config(models)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for mllm in ("llava-next", "qwen2.5-vl"):
        write_tiny_models(folder, CAPTIONS, mllm=mllm)
    return folder


CONFIGURATIONS = (
    "detect", "residual grid", "frames", "training_free", "video-lavit", "omnitokenizer", "gmm", "mse", "flow", "codes",
    "wan", "qwen",
)  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_operator_of_a_step_or_of_a_generation_is_refused(models, name):
    """Forward, backward, AdamW and clipping; then what validation makes: a video, and the loss without gradients."""
    config = dict(configurations(models))[name]
    framework = build_framework(config).train()
    trained = [p for p in framework.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, fused=True)
    with Refused() as found:
        framework(make_batch(framework, 2, size=112 if name == "qwen" else 64))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        framework.eval()
        if config.generates:
            generate(framework, "A red circle", 1.0, 8, steps=2, generator=torch.Generator().manual_seed(0))
    assert not found.names and found.seen > 500


def test_the_key_frame_is_the_one_that_a_median_with_indices_gives():
    """The lower of two middle values, as torch.median's; also of uint8 frames and of one frame."""
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 5, 8):
        frames = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
        thumbnails = torch.nn.functional.adaptive_avg_pool2d(frames.float(), 8).flatten(1)
        assert torch.equal(thumbnails.sort(dim=0).values[(count - 1) // 2], thumbnails.median(0).values)
        with Refused() as found:
            assert 0 <= detect_key_frame(frames) < count
        assert not found.names
