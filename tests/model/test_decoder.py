import copy

import pytest
import torch
from diffusers.models.transformers import transformer_hunyuan_video as hunyuan

from support.reference import flow_matching_loss
from support.tiny import imagined, make_batch
from vtok.config import ConfigError
from vtok.flow_matching import interpolate, shifted_logit_normal, squared_error
from vtok.generation import generate
from vtok.video_decoder import hunyuan_mask
from vtok.video_decoder.hunyuan import Conditioning


def random_conditioning(framework, counts, requires_grad=False):
    rows = torch.randn(len(counts), max(counts), framework.mllm.dim, requires_grad=requires_grad)
    return Conditioning(rows, counts, torch.randn(len(counts), 32))


def test_sigma_is_a_shifted_logit_normal():
    normal = torch.randn(10000)
    torch.testing.assert_close(shifted_logit_normal(normal, 1.0), torch.sigmoid(normal))
    assert shifted_logit_normal(torch.zeros(1), 7.0).item() == pytest.approx(7 / 8)


def test_training_meets_the_noise_levels_in_the_sampler_s_proportions(framework):
    """Quantiles of the draws against the 50 levels that diffusers' pipeline steps through; as flow_matching.py says."""
    scheduler = framework.decoder.scheduler
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0, 51)[:-1].tolist())
    sampled = scheduler.sigmas[:-1]
    drawn = shifted_logit_normal(torch.randn(100000, generator=torch.Generator().manual_seed(0)), 7.0)
    assert scheduler.config.shift == 7.0
    assert drawn.median().item() == pytest.approx(0.875, abs=0.002)
    assert sampled.median().item() == pytest.approx(0.875, abs=0.01)
    assert (drawn > sampled.min()).float().mean() > 0.999
    assert (1 - drawn).square().mean().item() == pytest.approx(0.043, abs=0.001)


def test_noise_objective_is_the_error_of_the_implied_noise():
    z, eps, v = torch.randn(3, 2, 4)
    sigma = torch.tensor(0.3)
    x = interpolate(z, eps, sigma)
    implied = x + (1 - sigma) * v
    torch.testing.assert_close(squared_error(v, z, eps, sigma, "noise"), (implied - eps) ** 2)
    torch.testing.assert_close(squared_error(v, z, eps, sigma, "velocity"), (v - (eps - z)) ** 2)


def test_loss_and_its_gradient_against_a_hand_written_reference(framework):
    """Each clip alone and unpadded, against the batch; a shorter clip is only judged on its own latents."""
    batch = make_batch(framework)
    batch.video[1, 5:] = batch.video[1, 4]
    counts = [3, 7, 5, 6]
    conditioning = random_conditioning(framework, counts, requires_grad=True)
    posterior = framework.decoder.encode(batch.video)
    losses = framework.decoder.loss(posterior, batch.video_counts, conditioning, batch.decoder_seeds)
    (gradient,) = torch.autograd.grad(losses.sum(), conditioning.rows)
    framework.decoder.text_encoder.forward = lambda ids: type("Out", (), {"pooler_output": pooled})
    for clip, count in enumerate(counts):
        pooled = conditioning.pooled[clip : clip + 1]
        rows = conditioning.rows[clip : clip + 1, :count].detach().requires_grad_()
        expected = flow_matching_loss(framework, batch, clip, rows)
        (expected_gradient,) = torch.autograd.grad(expected, rows)
        torch.testing.assert_close(losses[clip], expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(gradient[clip, :count], expected_gradient[0], atol=1e-6, rtol=1e-5)
        assert gradient[clip, count:].abs().sum() == 0


def test_draws_belong_to_the_sample(framework):
    together = framework.decoder.draw((4, 3, 4, 4), [5, 6], "cpu")
    alone = framework.decoder.draw((4, 3, 4, 4), [6], "cpu")
    assert all(torch.equal(a[1:], b) for a, b in zip(together, alone))


def test_frames_that_are_not_4k_plus_1_are_refused(framework):
    with pytest.raises(ConfigError, match="4k \\+ 1"):
        framework.decoder.encode(torch.zeros(1, 8, 3, 32, 32, dtype=torch.uint8))


def test_the_decoder_is_frozen(framework):
    assert not any(p.requires_grad for p in framework.decoder.parameters())
    assert not framework.decoder.transformer.training


def test_the_first_frames_of_a_window_have_latents_of_their_own(framework):
    """The autoencoder's convolutions are causal but its group norms see all of time: the latents of a window are no
    longer those of its beginning, so that stored ones cannot be cut to ``loss_latent_frames``."""
    video = make_batch(framework).video
    whole, short = framework.decoder.encode(video).mean, framework.decoder.encode(video[:, :5]).mean
    assert (whole.shape[2], short.shape[2]) == (3, 2)
    assert (whole[:, :, :2] - short).norm() > 1e-2 * short.norm()


@pytest.mark.parametrize("counts", [[3, 7, 5, 6], [5, 5, 5, 5]])
def test_checkpointed_blocks_are_recomputed_without_reentrance(framework, monkeypatch, counts):
    """Gradients through the checkpointed transformer equal those without, also if other clips came in between."""
    batch, decoder = make_batch(framework), framework.decoder
    asked = []
    checkpoint = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        torch.utils.checkpoint, "checkpoint",
        lambda *args, **options: asked.append(options.get("use_reentrant")) or checkpoint(*args, **options),
    )  # fmt: skip
    conditioning = random_conditioning(framework, counts, requires_grad=True)
    posterior = decoder.encode(batch.video)
    gradients = []
    for _ in range(2):
        losses = decoder.loss(posterior, batch.video_counts, conditioning, batch.decoder_seeds)
        with torch.no_grad():
            others = random_conditioning(framework, counts[::-1])
            decoder.loss(posterior, batch.video_counts, others, batch.decoder_seeds)
        gradients += torch.autograd.grad(losses.sum(), conditioning.rows)
        decoder.transformer.enable_gradient_checkpointing(decoder.attention.checkpoint)
    assert asked and set(asked) == {False}
    torch.testing.assert_close(*gradients, atol=0, rtol=1e-6)


def use_attention_of_diffusers(decoder):
    for block in [*decoder.transformer.transformer_blocks, *decoder.transformer.single_transformer_blocks]:
        block.attn.set_processor(hunyuan.HunyuanVideoAttnProcessor2_0())


@pytest.mark.parametrize("counts, empty_counts", [([5, 5], [2, 2]), ([5], [5]), ([3, 5], [2, 2]), ([3, 5], [5, 1])])
def test_joint_attention_never_has_a_mask_and_gives_what_diffusers_masked_one_does(
    framework, monkeypatch, counts, empty_counts
):
    """In training, with its gradients, and in sampling with guidance, whose two passes differ in their text rows."""
    decoder = framework.decoder
    decoder.config.true_guidance = 2.0
    masks = []
    attention = hunyuan_mask.dispatch_attention_fn
    monkeypatch.setattr(
        hunyuan_mask, "dispatch_attention_fn",
        lambda *args, **options: masks.append(options.get("attn_mask")) or attention(*args, **options),
    )  # fmt: skip
    conditioning, empty = random_conditioning(framework, counts, True), random_conditioning(framework, empty_counts)
    noisy, sigma = torch.randn(len(counts), 4, 3, 4, 4, requires_grad=True), torch.full((len(counts), 1, 1, 1, 1), 0.5)
    upstream = torch.randn(len(counts), 4, 3, 4, 4)

    def results():
        velocity = decoder.velocity(noisy, sigma, conditioning)
        gradients = torch.autograd.grad(velocity, [noisy, conditioning.rows], upstream)
        frames = decoder.denoise(conditioning, 5, 2, torch.Generator().manual_seed(0), empty)
        return velocity, *gradients, frames

    ours = results()
    one, two = (len(own) if min(own) < max(own) else 1 for own in (counts, empty_counts))
    layers, steps = 2, 2
    assert masks == [None] * layers * (one + steps * (one + two))
    use_attention_of_diffusers(decoder)
    for our, their in zip(ours, results(), strict=True):
        torch.testing.assert_close(our, their, atol=1e-5, rtol=1e-5)
    assert len(masks) == layers * (one + steps * (one + two)), "diffusers' own attention ran"


def test_a_copied_block_is_told_the_counts_of_the_transformer_that_runs_it(framework):
    decoder, sigma = framework.decoder, torch.full((2, 1, 1, 1, 1), 0.5)
    noisy, conditioning = torch.randn(2, 4, 3, 4, 4), random_conditioning(framework, [3, 7])
    with torch.no_grad():
        expected = decoder.velocity(noisy, sigma, conditioning)
        blocks = decoder.transformer.transformer_blocks
        blocks[0] = copy.deepcopy(blocks[0])
        assert torch.equal(decoder.velocity(noisy, sigma, conditioning), expected)
        assert torch.equal(copy.deepcopy(decoder).velocity(noisy, sigma, conditioning), expected)


def test_what_stands_in_padded_text_rows_makes_no_difference(framework):
    decoder, sigma = framework.decoder, torch.full((2, 1, 1, 1, 1), 0.5)
    noisy, conditioning = torch.randn(2, 4, 3, 4, 4), random_conditioning(framework, [3, 7])
    with torch.no_grad():
        before = decoder.velocity(noisy, sigma, conditioning)
        conditioning.rows[0, 3:] = 100 * torch.randn(4, framework.mllm.dim)
        assert torch.equal(decoder.velocity(noisy, sigma, conditioning), before)


@torch.no_grad()
def test_true_guidance_leads_away_from_the_empty_prompt(framework):
    """Nowhere without it, nor where both say the same; else the difference of two velocities counts so many times."""
    framework.eval()
    decoder = framework.decoder
    given, empty = random_conditioning(framework, [7]), random_conditioning(framework, [4])

    def video(scale, away=None, steps=2):
        decoder.config.true_guidance = scale
        return decoder.denoise(given, 9, steps, torch.Generator().manual_seed(0), away)

    plain = video(1.0)
    torch.testing.assert_close(video(3.0, given), plain, atol=1e-5, rtol=0)
    assert torch.equal(video(1.0, empty), plain)
    guided = [video(scale, empty) for scale in (1.5, 3.0)]
    assert 0 < (guided[0] - plain).abs().mean() < (guided[1] - plain).abs().mean()

    framework.config.decoder.true_guidance = decoder.config.true_guidance = 3.0
    made = []
    decoder.denoise = lambda *arguments: made.append(arguments) or plain
    generate(framework, "A red circle", 1.0, 8, steps=2)
    assert made[0][4].counts == [imagined(framework, "", 0).rows.shape[1]]
