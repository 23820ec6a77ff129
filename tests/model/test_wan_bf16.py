"""Wan as published: bf16 with its fp32 parts, both guidances, the negative prompt and the shift of its noise levels."""

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from torch import nn

from support.tiny import imagined, make_batch, wan_config
from support.wan import own_pipeline
from vtok.assembly.build import build_framework
from vtok.generation import generate
from vtok.pipeline import VTokPipeline
from vtok.video_decoder.wan_text import NEGATIVE_PROMPT, umt5_ids
from vtok.weights.materialise import whole
from vtok.weights.precision import cast_parameters

PROMPT = "A small red circle moves to the right."
TWO = dict(weights="wan_experts", expert="high_noise")
KINDS = pytest.mark.parametrize("kind", [dict(weights="wan"), TWO], ids=["one", "experts"])
PARTS = ("transformer", "vae", "text_encoder")


def bf16_framework(models, **settings):
    torch.manual_seed(0)
    return build_framework(wan_config(models, **settings), whole(torch.bfloat16)).eval()


def seeded():
    return torch.Generator().manual_seed(3)


@KINDS
def test_every_parameter_has_the_library_s_dtype_and_value(heeding_models, kind):
    framework = bf16_framework(heeding_models, **kind)
    pipeline = own_pipeline(framework, torch.bfloat16)
    for part in PARTS:
        ours, theirs = (dict(getattr(owner, part).named_parameters()) for owner in (framework.decoder, pipeline))
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name].dtype == value.dtype and torch.equal(ours[name], value), name
    table = framework.decoder.transformer.scale_shift_table
    assert table.dtype == torch.float32 and not torch.equal(table, table.bfloat16().float())
    assert {p.dtype for p in framework.mllm.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in framework.decoder.adapter.parameters()} == {torch.bfloat16}


@torch.no_grad()
@KINDS
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_in_bf16_a_video_without_visual_tokens_is_the_pipeline_s_to_the_last_bit(heeding_models, kind, guidance):
    second = dict(true_guidance_2=3.0) if "expert" in kind and guidance > 1 else {}
    framework = bf16_framework(heeding_models, **kind, true_guidance=guidance, **second)
    options = dict(height=32, width=32, num_frames=9, num_inference_steps=4, guidance_scale=guidance)
    if second:
        options["guidance_scale_2"] = 3.0
    expected = own_pipeline(framework, torch.bfloat16)(
        PROMPT, NEGATIVE_PROMPT, generator=seeded(), output_type="pt", **options
    ).frames
    told, away = (imagined(framework, prompt, 0) for prompt in (PROMPT, NEGATIVE_PROMPT))
    video = framework.decoder.denoise(told, 9, 4, seeded(), away if guidance > 1 else None)
    assert expected.std() > 0.01 and torch.equal(video, expected)


def test_a_generated_video_has_both_guidances_the_negative_prompt_and_the_shift(heeding_models):
    """Through ``generate``, in fp32: only with all three as published is it the pipeline's."""
    settings = dict(true_guidance=4.0, true_guidance_2=3.0, shift=12.0)

    def made(**changes):
        config = wan_config(heeding_models, **TWO, **settings | changes)
        config.tokeniser.strategy = "none"
        torch.manual_seed(0)
        return generate(build_framework(config).eval(), PROMPT, 9 / 8, steps=4, generator=seeded())

    framework = build_framework(wan_config(heeding_models, **TWO))
    pipeline = own_pipeline(framework)
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config, flow_shift=12.0)
    expected = pipeline(
        PROMPT, NEGATIVE_PROMPT, height=32, width=32, num_frames=9, num_inference_steps=4, guidance_scale=4.0,
        guidance_scale_2=3.0, generator=seeded(), output_type="pt",
    ).frames[0]  # fmt: skip

    def apart(video):
        return (video.float() / 255 - expected).abs().max().item()

    assert apart(made()) <= 1 / 255
    for changes in (dict(true_guidance_2=None), dict(negative_prompt=""), dict(shift=None)):
        assert apart(made(**changes)) > 2 / 255, changes


def test_the_shift_is_that_of_training_too(heeding_models):
    framework = build_framework(wan_config(heeding_models, **TWO, shift=12.0))
    assert framework.decoder.shift == framework.decoder.scheduler.config.flow_shift == 12.0
    assert build_framework(wan_config(heeding_models, **TWO)).decoder.shift == 3.0


def test_losses_in_bf16_are_those_of_fp32_within_its_rounding(heeding_models):
    """The autoencoder in fp32 gives the very latents."""
    frameworks = [bf16_framework(heeding_models), build_framework(wan_config(heeding_models)).eval()]
    posteriors = [framework.decoder.encode(make_batch(framework).video) for framework in frameworks]
    assert all(map(torch.equal, *posteriors))
    half = frameworks[0](make_batch(frameworks[0]))["loss_dec"]
    assert half.isfinite()


def test_in_a_notebook_the_fp32_parts_stay_fp32(heeding_models):
    pipeline = VTokPipeline(build_framework(wan_config(heeding_models)), "cpu", torch.bfloat16)
    assert {p.dtype for p in pipeline.framework.decoder.vae.parameters()} == {torch.float32}
    assert pipeline.framework.decoder.transformer.blocks[0].scale_shift_table.dtype == torch.float32
    assert pipeline.framework.decoder.transformer.dtype == torch.bfloat16


def test_a_model_without_such_a_rule_is_cast_whole():
    linear = nn.Linear(2, 2)
    cast_parameters(linear, torch.bfloat16)
    assert {p.dtype for p in linear.parameters()} == {torch.bfloat16}


def test_captions_are_mended_like_the_pipeline_s(heeding_models):
    """ftfy undoes wrong encodings, which captions from the web have."""
    tokenizer = own_pipeline(build_framework(wan_config(heeding_models))).tokenizer
    assert umt5_ids(tokenizer, "A cafÃ©.") == umt5_ids(tokenizer, "A café.")
