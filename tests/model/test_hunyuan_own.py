"""HunyuanVideo's own language model, as ``llava`` and as bare ``llama``: at step 0 the framework is HunyuanVideo."""

import pytest
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from transformers import AutoTokenizer, CLIPTextModel, LlamaForCausalLM, LlamaModel, LlavaForConditionalGeneration

from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from support.tiny import CAPTIONS, imagined, make_batch, model_config
from vtok.assembly.architectures import meta_framework
from vtok.assembly.build import build_framework
from vtok.assembly.pretrained import from_pretrained, save_pretrained
from vtok.assembly.tiny import write_tiny_models
from vtok.config import ConfigError
from vtok.generation import generate
from vtok.rows.prompts import DECODER_TEMPLATE
from vtok.understanding import understand

PROMPT = "A small red circle moves to the right."
KINDS = {"llava": LlavaForConditionalGeneration, "llama": LlamaForCausalLM}


@pytest.fixture(scope="module", params=KINDS)
def own(request, tmp_path_factory):
    """The kind, and a folder with HunyuanVideo and its language model."""
    folder = tmp_path_factory.mktemp(request.param)
    write_tiny_models(folder, CAPTIONS, mllm=request.param)
    return request.param, folder


def built(kind, folder, strategy="vtok"):
    config = model_config(folder)
    config.mllm.kind, config.tokeniser.strategy = kind, strategy
    torch.manual_seed(0)
    return build_framework(config)


def own_pipeline(kind, folder):
    """HunyuanVideoPipeline, all of whose parts diffusers and transformers load."""
    whole = KINDS[kind].from_pretrained(folder / "llava")
    parts = dict(
        text_encoder=LlamaModel.from_pretrained(folder / "llava") if kind == "llama" else whole.model.language_model,
        tokenizer=AutoTokenizer.from_pretrained(folder / "llava"),
        text_encoder_2=CLIPTextModel.from_pretrained(folder / "hunyuan/text_encoder_2"),
        tokenizer_2=AutoTokenizer.from_pretrained(folder / "hunyuan/tokenizer_2"),
        transformer=HunyuanVideoTransformer3DModel.from_pretrained(folder / "hunyuan/transformer"),
        vae=AutoencoderKLHunyuanVideo.from_pretrained(folder / "hunyuan/vae"),
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "hunyuan/scheduler"),
    )
    pipeline = HunyuanVideoPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def test_from_text_alone_it_is_hunyuan_video(own):
    """Rows and pooled vector, sampled frames (0..1), and the video that ``generate`` makes: the zero-token row."""
    framework, pipeline = built(*own, strategy="none").eval(), own_pipeline(*own)
    template = dict(template=DECODER_TEMPLATE, crop_start=framework.text.crop_start)
    told = dict(prompt_template=template, max_sequence_length=64)
    rows, pooled, mask = pipeline.encode_prompt(PROMPT, **told)
    ours = imagined(framework, PROMPT, 0)
    assert ours.rows.shape[1] == mask.sum()
    torch.testing.assert_close(ours.rows, rows[:, : ours.rows.shape[1]], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.pooled, pooled, atol=1e-5, rtol=0)

    def seeded():
        return torch.Generator().manual_seed(3)

    expected = pipeline(
        prompt=PROMPT, height=32, width=32, num_frames=9, num_inference_steps=3, guidance_scale=6.0,
        generator=seeded(), output_type="pt", **told,
    ).frames  # fmt: skip
    torch.testing.assert_close(framework.decoder.denoise(ours, 9, 3, seeded()), expected, atol=1e-4, rtol=0)
    video = generate(framework, PROMPT, 9 / 8, steps=3, generator=seeded())
    assert (video - (255 * expected[0]).round()).abs().max() <= 1 and expected.std() > 0.01


def test_it_trains_answers_and_is_saved_as_its_own_kind(own, tmp_path):
    framework = built(*own).train()
    losses = framework(make_batch(framework, 2))
    losses["loss"].backward()
    lost = [name for name, p in framework.named_parameters() if p.requires_grad and p.grad is None]
    assert not lost and all(losses[name] > 0 for name in ("loss_under", "loss_vis_lm", "loss_dec"))
    framework.eval()
    assert isinstance(understand(framework, make_batch(framework, 1).frames[0], "What?", 4), str)
    save_pretrained(framework, tmp_path / "saved")
    opened = KINDS[own[0]].from_pretrained(tmp_path / "saved")
    assert torch.equal(opened.lm_head.weight, framework.mllm.lm_head.weight)
    again = from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(again[name], value) for name, value in framework.state_dict().items())


def test_llava_s_projector_becomes_phi_vis_and_a_bare_llama_gets_a_new_one(own):
    kind, folder = own
    projector = built(kind, folder).projection.projector
    if kind == "llava":
        stored = KINDS[kind].from_pretrained(folder / "llava").model.multi_modal_projector.state_dict()
        assert all(torch.equal(value, stored[name]) for name, value in projector.state_dict().items())
    else:
        assert type(projector).__module__.startswith("torch")


def test_another_kind_is_one_line_that_names_the_setting(own):
    kind, folder = own
    with pytest.raises(ConfigError, match=f"of a '{kind}', not a 'llava_next': set mllm.kind {kind}$"):
        built("llava-next", folder)


def test_the_published_model_can_be_planned_without_a_download():
    options = ("--model.mllm.kind", "llava", "--model.mllm.weights", "xtuner/llava-llama-3-8b-v1_1-transformers")
    config = parse_run_arguments(["--config", str(PRESETS / "llava_next_8b_hunyuan.yaml"), *options]).config
    assert round(meta_framework(config.model).parameter_counts()["language_model"] / 1e9, 2) == 8.03
