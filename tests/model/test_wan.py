"""Wan as the decoder, against diffusers' own pipeline and transformer: with one transformer, and with two experts."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import mse_loss
from torch.utils.flop_counter import FlopCounterMode

from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from pipelines.metering.flops import sample_flops
from pipelines.metering.workload import typical_workload
from support.tiny import imagined, make_batch, model_config, planned_batch, planned_config, wan_config
from support.wan import own_pipeline
from vtok.assembly.architectures import meta_framework
from vtok.assembly.build import build_framework, frozen_weights
from vtok.assembly.pretrained import from_pretrained, save_pretrained
from vtok.config import ConfigError, DecoderConfig
from vtok.flow_matching import shifted_logit_normal
from vtok.generation import generate
from vtok.video_decoder import GenerationRow, build_vae
from vtok.video_decoder.wan import EXPERTS

PROMPTS = ["A small red circle moves to the right.", "  Blue &amp; \n green. ", "A large green square moves up. " * 90]
ONE, TWO = dict(weights="wan"), dict(weights="wan_experts", expert="high_noise")


def wan_framework(models, **settings):
    torch.manual_seed(0)
    return build_framework(wan_config(models, **settings)).train()


@pytest.fixture(params=[ONE, TWO], ids=["one", "experts"])
def wan(request, heeding_models):
    return wan_framework(heeding_models, **request.param)


def seeded():
    return torch.Generator().manual_seed(3)


def random_rows(framework, counts):
    dim = framework.mllm.dim
    return [GenerationRow(torch.randn(5, dim), torch.randn(count, dim, requires_grad=True)) for count in counts]


def encoded(framework, captions):
    return framework.decoder.encode_text([framework.text.caption_ids(caption) for caption in captions], "cpu")


# ---------------------------------------------------------------- what it is told


@pytest.mark.parametrize("prompt", PROMPTS)
def test_without_visual_tokens_the_rows_are_the_pipeline_s(wan, prompt):
    """Cleaned, tokenised, cut and encoded alike; the last prompt is longer than 512 tokens."""
    expected, _ = own_pipeline(wan).encode_prompt(prompt, max_sequence_length=512, do_classifier_free_guidance=False)
    ours = imagined(wan.eval(), prompt, 0)
    assert ours.shape == expected.shape == (1, 512, 32) and expected.abs().sum() > 0
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_adapted_states_stand_right_behind_the_prompt_and_zeros_fill_up(wan):
    """In a batch as alone; where both are many the caption gives way."""
    captions, counts = [PROMPTS[0], PROMPTS[1], PROMPTS[2]], [7, 0, 20]
    rows = random_rows(wan, counts)
    given = wan.decoder.condition(rows, encoded(wan, captions))
    for clip, (caption, count) in enumerate(zip(captions, counts)):
        (text,) = encoded(wan, [caption])
        kept = min(len(text), 512 - count)
        torch.testing.assert_close(given[clip, :kept], text[:kept], atol=1e-5, rtol=0)
        first, _, last = wan.decoder.adapter
        adapted = last(torch.nn.functional.gelu(first(rows[clip].visual)))
        torch.testing.assert_close(given[clip, kept : kept + count], adapted, atol=1e-6, rtol=0)
        assert not given[clip, kept + count :].any()
    assert first.weight.shape == (48, wan.mllm.dim) and last.weight.shape == (32, 48)
    with pytest.raises(ConfigError, match="513 visual tokens"):
        wan.decoder.condition(random_rows(wan, [513]), encoded(wan, ["A."]))


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_sampling_without_visual_tokens_is_the_pipeline_s(wan, guidance):
    """Same seed, same frames (0..1). With experts both take part, though one is in memory at a time."""
    wan.eval()
    wan.config.decoder.true_guidance = wan.decoder.config.true_guidance = guidance
    before = {name: value.clone() for name, value in wan.decoder.state_dict().items()}
    pipeline = own_pipeline(wan)
    options = dict(height=32, width=32, num_frames=9, num_inference_steps=4, guidance_scale=guidance)
    expected = pipeline(PROMPTS[0], generator=seeded(), output_type="pt", **options).frames
    conditioning, empty = (imagined(wan, prompt, 0) for prompt in (PROMPTS[0], ""))
    away = empty if guidance > 1 else None
    video = wan.decoder.denoise(conditioning, 9, 4, seeded(), away)
    torch.testing.assert_close(video, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.01 and (wan.decoder.denoise(empty, 9, 4, seeded()) - video).abs().max() > 1e-2
    assert all(torch.equal(value, before[name]) for name, value in wan.decoder.state_dict().items())
    if pipeline.transformer_2 is not None:
        alone = pipeline.transformer.state_dict()
        pipeline.transformer_2.load_state_dict(alone)
        one = pipeline(PROMPTS[0], generator=seeded(), output_type="pt", **options).frames
        assert (one - expected).abs().max() > 1e-3  # the second expert counts


def test_visual_tokens_change_the_video(wan):
    wan.eval()
    seconds = dict(seconds=1.25, fps=8, steps=2)
    videos = [
        generate(wan, "A red circle", **seconds, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    assert videos[0].shape == (10, 3, 32, 32) and videos[0].dtype == torch.uint8
    assert torch.equal(videos[0], videos[1]) and not torch.equal(videos[0], videos[2])
    given, told = (
        wan.decoder.condition(random_rows(wan, [count]), encoded(wan, ["A red circle"])).detach() for count in (0, 8)
    )
    plain, changed = (wan.decoder.denoise(x, 9, 2, torch.Generator().manual_seed(0)) for x in (given, told))
    assert (plain - changed).abs().max() > 1e-3


# ---------------------------------------------------------------- training


def test_loss_and_gradient_against_a_direct_call_of_the_transformer(wan):
    """Latents ``(z - mean) / std``, a timestep or one a token, 512 rows, each clip alone; into adapter and states."""
    batch, decoder = make_batch(wan), wan.decoder
    batch.video[1, 5:] = batch.video[1, 4]
    text, rows = encoded(wan, PROMPTS[:2] * 2), random_rows(wan, [3, 7, 0, 6])
    losses = decoder.loss(decoder.encode(batch.video), batch.video_counts, decoder.condition(rows, text), [9, 8, 7, 6])
    parameters = [*decoder.adapter.parameters(), *(row.visual for row in rows)]
    gradients = torch.autograd.grad(losses.sum(), parameters)

    own = own_pipeline(wan)
    shift, total = own.scheduler.config.flow_shift, 0.0
    for clip, seed in enumerate([9, 8, 7, 6]):
        told = torch.cat([text[clip], decoder.adapter(rows[clip].visual)])
        told = torch.cat([told, torch.zeros(512 - len(told), 32)])[None]
        with torch.no_grad():
            posterior = own.vae.encode(batch.video[clip : clip + 1].transpose(1, 2) / 127.5 - 1).latent_dist
            generator = torch.Generator().manual_seed(seed)
            normal = torch.randn(1, generator=generator)
            z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape[1:], generator=generator)
            noise = torch.randn(z.shape[1:], generator=generator)[None]
            mean, std = (torch.tensor(own.vae.config[name]) for name in ("latents_mean", "latents_std"))
            z = (z - mean[:, None, None, None]) / std[:, None, None, None]
        sigma = shifted_logit_normal(normal, shift)
        if own.transformer_2 is not None:
            # Of the uniform share above the boundary as much as of all of it.
            share = torch.distributions.Normal(0, 1).cdf(normal.double())
            at = torch.distributions.Normal(0, 1).cdf(torch.tensor(0.875 / (3 * 0.125)).double().log())
            drawn = torch.distributions.Normal(0, 1).icdf(at + share * (1 - at))
            sigma = shifted_logit_normal(drawn, shift).float()
            assert 0.875 <= sigma <= 1
        timestep = sigma * 1000
        if own.config.expand_timesteps:
            timestep = timestep.expand(1, z.shape[2] * (z.shape[3] // 2) * (z.shape[4] // 2))
        velocity = own.transformer((1 - sigma) * z + sigma * noise, timestep, told, return_dict=False)[0]
        real = (batch.video_counts[clip] - 1) // 4 + 1
        expected = mse_loss(velocity[:, :, :real], (noise - z)[:, :, :real])
        torch.testing.assert_close(losses[clip], expected, atol=1e-5, rtol=1e-5)
        total = total + expected
    for ours, expected in zip(gradients, torch.autograd.grad(total, parameters), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)
    assert all(gradient.abs().sum() > 0 for gradient in gradients if gradient.numel())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_the_adapter_trains_of_the_decoder_and_l_dec_reaches_the_language_model(tiny_models, checkpointing):
    framework = wan_framework(tiny_models, gradient_checkpointing=checkpointing)
    trainable = {name for name, p in framework.decoder.named_parameters() if p.requires_grad}
    assert trainable == {f"adapter.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert not framework.decoder.training
    framework(make_batch(framework))["loss_dec"].backward()
    for name, parameter in framework.decoder.named_parameters():
        assert (parameter.grad is not None) == (name in trainable), name
    assert all(p.grad.abs().sum() > 0 for p in framework.decoder.adapter.parameters())
    assert framework.mllm.causal_lm.model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0


def test_a_step_without_l_dec_gives_the_adapter_a_gradient_of_zero(tiny_models):
    """Under ZeRO-3 one that got none would get the last step's again; also where no clip has a visual token."""
    framework = wan_framework(tiny_models)
    framework(make_batch(framework), with_decoder=False)["loss"].backward()
    assert all(p.grad is not None and not p.grad.any() for p in framework.decoder.adapter.parameters())
    config = wan_config(tiny_models)
    blind = build_framework(replace(config, tokeniser=replace(config.tokeniser, strategy="none"))).train()
    blind(make_batch(blind))["loss"].backward()
    assert all(p.grad is not None and not p.grad.any() for p in blind.decoder.adapter.parameters())


def test_the_experts_together_meet_the_noise_levels_of_one(tiny_models):
    """Each its own side of the boundary, in the proportions of the undivided distribution."""
    normal = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    whole = shifted_logit_normal(normal, 3.0)
    for expert, own in (("high_noise", whole[whole >= 0.875]), ("low_noise", whole[whole < 0.875])):
        drawn = wan_framework(tiny_models, weights="wan_experts", expert=expert).decoder.noise_level(normal)
        assert bool((drawn >= 0.875 - 1e-6).all() if expert == "high_noise" else (drawn <= 0.875 + 1e-6).all())
        levels = torch.linspace(0.01, 0.99, 25)
        assert len(own) > 5000
        torch.testing.assert_close(drawn.quantile(levels), own.quantile(levels), atol=0.01, rtol=0)


def test_each_expert_is_read_from_its_own_folder_and_a_run_may_change_it(tiny_models):
    """What a resumed run compares names both, whichever is loaded."""
    loaded = {}
    for expert, folder in EXPERTS.items():
        framework = wan_framework(tiny_models, weights="wan_experts", expert=expert)
        stored = getattr(own_pipeline(framework), folder).state_dict()
        loaded[expert] = framework.decoder.transformer.state_dict()
        assert all(torch.equal(value, stored[name]) for name, value in loaded[expert].items())
    assert any(not torch.equal(value, loaded["low_noise"][name]) for name, value in loaded["high_noise"].items())
    high, low = (frozen_weights(wan_config(tiny_models, weights="wan_experts", expert=expert)) for expert in EXPERTS)
    assert high == low and {"high_noise_expert", "low_noise_expert"} < high.keys()
    assert "diffusion_transformer" in frozen_weights(wan_config(tiny_models))


# ---------------------------------------------------------------- folders and plans


def test_a_saved_framework_keeps_its_adapter(wan, tmp_path):
    wan.eval()
    save_pretrained(wan, tmp_path / "saved")
    again = from_pretrained(tmp_path / "saved").eval()
    assert all(torch.equal(value, wan.state_dict()[name]) for name, value in again.state_dict().items())
    videos = [
        generate(framework, "Blue.", 0.5, 8, steps=2, generator=torch.Generator().manual_seed(1))
        for framework in (wan, again)
    ]
    assert torch.equal(*videos)


def test_stored_latents_are_those_of_the_autoencoder(wan):
    batch = make_batch(wan, 2)
    ready = batch._replace(video=wan.decoder.encode(batch.video))
    alone = build_vae(wan.config.decoder)
    assert all(torch.equal(value, wan.decoder.vae.state_dict()[name]) for name, value in alone.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(wan(ready)["loss_dec"], wan(batch)["loss_dec"], atol=0, rtol=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_planned_flops_equal_those_of_a_real_step(tiny_models, checkpointing):
    config = planned_config(tiny_models)
    config.model = wan_config(tiny_models, gradient_checkpointing=checkpointing)
    framework = build_framework(config.model).train()
    flops = sample_flops(config, framework)
    load = typical_workload(config, framework, 1, text=framework.text)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        framework(planned_batch(load))["loss"].backward()
    assert sum(part.hardware for part in flops.values()) == pytest.approx(counter.get_total_flops(), rel=1e-3)


PUBLISHED = {
    "llava_next_8b_wan2.2_t2v_a14b": {"diffusion_transformer": 14.29, "text_encoder": 5.68, "autoencoder": 0.13},
    "llava_next_8b_wan2.2_ti2v_5b": {"diffusion_transformer": 5.00, "text_encoder": 5.68, "autoencoder": 0.70},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_presets_build_on_the_meta_device_with_the_published_parameter_counts(name):
    config = parse_run_arguments(["--config", str(PRESETS / f"{name}.yaml")]).config
    framework = meta_framework(config.model)
    billions = {part: round(count / 1e9, 2) for part, count in framework.parameter_counts().items()}
    assert billions["language_model"] == 8.03 and billions.items() >= PUBLISHED[name].items()
    assert framework.parameter_counts()["adapter"] == 2 * (4096 * 4096 + 4096)
    assert sum(p.numel() for p in framework.parameters()) == sum(framework.parameter_counts().values())
    assert {name for name, p in framework.decoder.named_parameters() if p.requires_grad} == {
        f"adapter.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }
    assert framework.decoder.shift == (12.0 if config.model.decoder.expert else 5.0)
    if config.model.decoder.expert is None:  # published at 24 frames per second, 121 frames
        assert framework.decoder.latent_shape(121, 704, 1280) == (48, 31, 44, 80)
        assert framework.decoder.timestep_per_token
    else:
        assert framework.decoder.latent_shape(81, 480, 832) == (16, 21, 60, 104)
        assert framework.decoder.boundary == 0.875


# ---------------------------------------------------------------- what does not go together


def refused(config, *parts):
    with pytest.raises(ConfigError) as error:
        build_framework(config)
    assert "\n" not in str(error.value) and all(part in str(error.value) for part in parts), error.value


def test_what_does_not_go_together_is_one_clear_line(tiny_models, tmp_path):
    refused(wan_config(tiny_models, weights="hunyuan"), "decoder.weights", "no Wan", "model_index.json")
    refused(wan_config(tiny_models, weights="wan", expert="low_noise"), "one transformer", "leave decoder.expert out")
    refused(wan_config(tiny_models, weights="wan_experts"), "two experts", "high_noise or low_noise")
    refused(wan_config(tiny_models, height=48), "multiples of 32 x 32", "48x32")
    refused(wan_config(tiny_models, loss_height=48, loss_width=64), "multiples of 32 x 32", "48x64")
    refused(replace(wan_config(tiny_models), decoder=DecoderConfig(weights=f"{tiny_models}/wan")), "no HunyuanVideo")
    with pytest.raises(ConfigError, match="VidTok.*leave it out with wan"):
        DecoderConfig(kind="wan", vae="somewhere")
    with pytest.raises(ConfigError, match="decoder.expert is a setting of decoder.kind wan"):
        DecoderConfig(expert="low_noise")
    with pytest.raises(ConfigError, match="true_guidance_2.*needs decoder.expert"):
        DecoderConfig(kind="wan", true_guidance=4.0, true_guidance_2=3.0)
    with pytest.raises(ConfigError, match="the published model has no such part"):
        meta_framework(replace(model_config(tiny_models), decoder=DecoderConfig(kind="wan")))

    def altered(file, **changes):
        shutil.rmtree(tmp_path / "wan", ignore_errors=True)
        shutil.copytree(tiny_models / "wan", tmp_path / "wan")
        path = tmp_path / "wan" / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        config = wan_config(tiny_models)
        return replace(config, decoder=replace(config.decoder, weights=str(tmp_path / "wan")))

    refused(altered("transformer/config.json", text_dim=48), "reads text of width 48", "gives 32")
    refused(altered("transformer/config.json", in_channels=48), "reads latents of 48 channels", "gives 16")
    refused(altered("transformer/config.json", num_layers=3), "wan/transformer", "blocks.2")
    refused(
        altered("model_index.json", _class_name="WanImageToVideoPipeline"), "WanImageToVideoPipeline", "WanPipeline"
    )
    refused(altered("text_encoder/config.json", model_type="t5"), "wan/text_encoder", "'t5'", "'umt5'")
    refused(altered("vae/config.json", _class_name="AutoencoderKLHunyuanVideo"), "wan/vae", "AutoencoderKLWan")
