"""What only a GPU can show of a run: bf16, CUDA's random state, fused updates, sums whose order its threads decide.

``python pipelines/bench.py gpu`` runs these first.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from pipelines.benchmarks.gpu.measure import trace
from pipelines.engine.loading.prefetch import on_device
from support.launch import checked, python
from support.runs import log_of, make_shards, options, without_rates
from support.tiny import make_batch
from vtok.generation import generate
from vtok.understanding import understand
from vtok.weights.precision import cast_parameters

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

DEVICE = torch.device("cuda", 0)


def train(shards, output, steps, ds_config="zero3.json"):
    """The tiny preset in bf16, saved and judged every three steps, every operation repeatable."""
    words = ("--config", "pipelines/configs/tiny.yaml", "--ds_config", f"deepspeed_configs/{ds_config}")
    words += ("--train.deterministic", "true", "--validation.shards", str(shards), "--validation.every", "3")
    words += ("--validation.samples", "4", "--validation.denoising_steps", "2")
    checked(python("pipelines/train.py", *words, *options(shards, output, steps, every=3), CUDA_VISIBLE_DEVICES="0"))
    return output


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """A run of six steps."""
    return train(shards, tmp_path_factory.mktemp("whole") / "out", steps=6)


@pytest.fixture
def on_gpu(framework):
    """The tiny framework in bf16 on the GPU."""
    cast_parameters(framework, torch.bfloat16)
    return framework.to(DEVICE).eval()


def test_batches_copied_ahead_are_the_same_batches():
    """Each is used long enough for the next one's copy to overtake it, if it could."""
    whole = [torch.full((1 << 22,), float(number)).pin_memory() for number in range(6)]
    sums = []
    for batch in on_device(iter(whole), DEVICE):
        torch.cuda._sleep(50_000_000)
        sums.append(batch.sum())
    assert [float(value) / (1 << 22) for value in sums] == list(range(6))


def test_a_resumed_run_repeats_the_log_to_the_last_digit(shards, whole, tmp_path):
    """With fused AdamW, whose count of steps must come back on the GPU, and after a validation that made a video."""
    resumed = tmp_path / "resumed"
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints/step_00000006")
    train(shards, resumed, steps=6)
    logs = [without_rates(log_of(output)) for output in (whole, resumed)]
    assert logs[0] == logs[1] and [line["step"] for line in logs[0]] == list(range(1, 7))
    assert log_of(whole)[-1]["gpu_allocated_gb"] > 0


def test_a_run_under_zero_2_resumes_too(shards, tmp_path):
    train(shards, tmp_path / "out", steps=3, ds_config="zero2.json")
    train(shards, tmp_path / "out", steps=6, ds_config="zero2.json")
    assert [line["step"] for line in log_of(tmp_path / "out")] == list(range(1, 7))


def test_a_save_beside_training_holds_what_one_after_training_holds(shards, whole, tmp_path):
    """Steps 4 to 6 change weights and moments while those of step 3 are still being written."""
    ended = train(shards, tmp_path / "ended", steps=3)
    name = "checkpoints/step_00000003/rank_00000.safetensors"
    beside, after = load_file(whole / name), load_file(ended / name)
    assert beside.keys() == after.keys() and any(key.startswith("exp_avg_sq/") for key in after)
    assert [key for key in after if not torch.equal(beside[key], after[key])] == []


def test_the_losses_in_bf16_are_those_of_the_cpu_in_fp32(framework):
    """Noise and noise levels are drawn on the CPU: the two differ by rounding alone."""
    batch = make_batch(framework)
    names = ("loss_under", "loss_vis_lm", "loss_dec")
    with torch.no_grad():
        expected = framework(batch)
        cast_parameters(framework, torch.bfloat16)
        found = framework.to(DEVICE)(batch.to(DEVICE))
    assert {name: float(found[name]) for name in names} == pytest.approx(
        {name: float(expected[name]) for name in names}, rel=0.03
    )


def test_the_gradients_of_every_trained_weight_are_finite_in_bf16(on_gpu):
    on_gpu.train()(make_batch(on_gpu).to(DEVICE))["loss"].backward()
    trained = {name: p for name, p in on_gpu.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.isfinite().all()] == []


def test_a_video_is_made_in_bf16_and_again_the_same(on_gpu):
    def video():
        return generate(on_gpu, "A red circle.", seconds=1, steps=2, generator=torch.Generator().manual_seed(0)).cpu()

    first = video()
    assert first.shape == (8, 3, 32, 32) and first.dtype == torch.uint8
    assert torch.equal(first, video()) and first.float().std() > 0


def test_a_question_is_answered_in_bf16_and_again_the_same(on_gpu):
    frames = torch.randint(0, 256, (9, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    answers = {understand(on_gpu, frames.to(DEVICE), "What moves?", max_new_tokens=8) for _ in range(2)}
    assert len(answers) == 1


def test_attention_without_a_mask_is_flash_attention(on_gpu):
    """In the language model's packed rows and in the diffusion transformer, for one clip."""
    batch = make_batch(on_gpu, count=1, frame_counts=[9]).to(DEVICE)
    seen = trace(lambda: on_gpu.train()(batch)["loss"].backward(), DEVICE)
    calls = sum(kernel.calls for kernel in seen.kernels if "flash" in kernel.name.lower())
    config = on_gpu.mllm.causal_lm.config
    assert calls >= 2 * config.num_hidden_layers, json.dumps([kernel.name for kernel in seen.kernels], indent=1)
