"""Our paths against the libraries' own, in fp32: LLaVA-Next's logits, CLIP's preprocessing, HunyuanVideo's sampling."""

import json
import shutil

import pytest
import torch
from diffusers import HunyuanVideoPipeline
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPVisionModel,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from data_tools.shapes import render_clips
from data_tools.video.decode import decode, validate
from data_tools.video.views import CENTRE, make_views, tokeniser_view, window
from support.anyres import anyres_embeddings, tile_grid
from support.real_clips import CLIPS
from support.reference import clip_pixels
from support.templates import TYPED_TEMPLATE
from support.tiny import imagined, model_config
from vtok.assembly.build import build_framework
from vtok.config import ConfigError, VTokConfig
from vtok.feature_extractor import build_feature_extractor
from vtok.rows.plan import assemble, plan_rows
from vtok.rows.prompts import DECODER_TEMPLATE
from vtok.rows.text import RowText, TextEncoder, mark

# ---------------------------------------------------------------- CLIP


@pytest.fixture(scope="module")
def clip_video(tmp_path_factory):
    """A real clip, else one of moving shapes."""
    if (CLIPS / "coffee.mp4").is_file():
        return CLIPS / "coffee.mp4"
    folder = tmp_path_factory.mktemp("clip")
    render_clips(folder, 1, seed=0)
    return folder / "000.mp4"


def test_a_real_frame_is_preprocessed_and_encoded_as_by_transformers(clip_video, tiny_models):
    """The tokeniser's view of a frame, against ``CLIPImageProcessor`` and ``CLIPVisionModel`` on the whole frame."""
    view = tokeniser_view(1.0, 2, 64, 64)
    duration = validate(clip_video).duration
    start = window(duration, 1.0, CENTRE)
    frames = make_views(clip_video, duration, view, None, start).frames
    ((_, picture),) = decode(clip_video, [start])
    assert (clip_pixels(picture.permute(2, 0, 1), 64) - frames[0].int()).abs().max() <= 1

    sizes = dict(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    extractor = build_feature_extractor(VTokConfig(weights=str(tiny_models / "clip")))
    reference = CLIPVisionModel.from_pretrained(tiny_models / "clip").eval()
    ours = Image.fromarray(frames[0].permute(1, 2, 0).numpy())
    pixels = CLIPImageProcessorPil(**sizes)(ours, return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = reference(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        torch.testing.assert_close(extractor(frames[:1]).flatten(1, 2), expected, atol=1e-5, rtol=0)


# ---------------------------------------------------------------- LLaVA-Next


@pytest.fixture(scope="module")
def llava(tiny_models, tmp_path_factory):
    """The tiny LLaVA-Next with tiles of its own size, its processor, and our framework on the same weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llava")
    config = LlavaNextConfig.from_pretrained(tiny_models / "llava")
    config.image_grid_pinpoints = [[64, 128], [128, 64], [128, 128], [64, 192]]
    model = LlavaNextForConditionalGeneration.from_pretrained(tiny_models / "llava", config=config).eval()
    model.model.vision_tower.save_pretrained(folder / "clip")
    tokenizer = AutoTokenizer.from_pretrained(tiny_models / "llava")
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64},
        image_grid_pinpoints=config.image_grid_pinpoints,
    )  # fmt: skip
    processor = LlavaNextProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", chat_template=TYPED_TEMPLATE,
        num_additional_image_tokens=1,
    )  # fmt: skip
    settings = model_config(tiny_models)
    settings.tokeniser.weights = str(folder / "clip")
    framework = build_framework(settings).eval()
    framework.text.tokenizer.chat_template = TYPED_TEMPLATE
    return model, processor, framework


QUESTION = "What moves to the right?"
MESSAGE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]


@pytest.mark.parametrize("height, width", [(50, 70), (97, 100), (200, 61), (64, 333)])
def test_all_of_llava_next_s_own_image_tokens_give_its_logits(llava, height, width):
    """Base grid, tiles without padding, ``image_newline``: our ``F``, phi_vis and rows, on pictures of any shape."""
    model, processor, framework = llava
    picture = Image.fromarray(torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).numpy())
    chat = processor.apply_chat_template(MESSAGE, add_generation_prompt=True)
    inputs = processor(images=picture, text=chat, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits[0]

        tiles = tile_grid((height, width), model.config.image_grid_pinpoints, 64)
        grids = framework.tokeniser.feature_extractor(inputs.pixel_values[0])
        newline = model.model.image_newline
        visual = anyres_embeddings(framework.projection.projector(grids), (height, width), tiles, newline)
        before, after = framework.text.question(QUESTION)
        text = RowText([*before, mark(0), *after], answer=[], prompt=[], decoder_ids=[], predicts=False, decodes=False)
        plan = plan_rows([text], [len(visual)], 0, generation=False)
        hidden = framework.mllm(assemble(plan, framework.mllm.embed(plan.token_ids), visual[None]))
        logits = framework.mllm.lm_head(hidden.last)[0]
    assert len(visual) > 64 and logits.shape == expected.shape
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_at_step_0_the_logits_are_the_pretrained_model_s(llava):
    """P is zero at start: our S + M tokens through LLaVA's own projector and language model, to the last bit."""
    model, _, framework = llava
    frames = torch.randint(0, 256, (1, 5, 3, 64, 64), dtype=torch.uint8)
    before, after = framework.text.question(QUESTION)
    with torch.no_grad():
        tokens = framework.tokeniser(frames)
        text = RowText([*before, mark(0), *after], answer=[], prompt=[], decoder_ids=[], predicts=False, decodes=False)
        plan = plan_rows([text], [tokens.shape[1]], 0, generation=False)
        rows = assemble(plan, framework.mllm.embed(plan.token_ids), framework.projection(tokens))
        ours = framework.mllm.lm_head(framework.mllm(rows).last)

        embed = model.get_input_embeddings()
        visual = model.model.multi_modal_projector(tokens)
        rows = torch.cat([embed(torch.tensor([before])), visual, embed(torch.tensor([after]))], dim=1)
        expected = model(inputs_embeds=rows).logits
    assert tokens.shape[1] == 16 + 4
    assert torch.equal(ours, expected)


def test_chat_templates_of_typed_parts_and_of_strings(llava):
    """Both kinds are published; ids and first token as LLaVA's processor makes them."""
    _, processor, framework = llava
    text = framework.text
    image = text.tokenizer.convert_tokens_to_ids("<image>")
    before, after = text.question(QUESTION)
    chat = processor.apply_chat_template(MESSAGE, add_generation_prompt=True)
    assert [*before, image, *after] == text.tokenizer(chat).input_ids  # its tokenizer adds the first token
    assert before[0] == text.tokenizer.bos_token_id

    typed = text.tokenizer.chat_template
    head, tail = typed[: typed.index("{% for part")], typed[typed.index("{% endfor %}{% if") :]
    strings = head + "{{ message['content'].strip() }}<|eot_id|>" + tail
    try:
        text.tokenizer.chat_template = strings
        assert text.question(QUESTION) == (before, after)
        text.tokenizer.chat_template = "{{ bos_token }}" + strings  # not twice
        assert text.question(QUESTION) == (before, after)
        text.tokenizer.chat_template = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
        with pytest.raises(ConfigError, match="chat template of mllm.weights"):
            text.question(QUESTION)
    finally:
        text.tokenizer.chat_template = typed


def test_the_processor_s_chat_template_is_preferred_to_the_tokenizer_s(tiny_models, tmp_path):
    """As llava-hf publishes it: typed parts in ``chat_template.json``, the bare LLaMA's in the tokenizer's own file."""
    shutil.copytree(tiny_models, tmp_path / "m")
    (tmp_path / "m/llava/chat_template.json").write_text(json.dumps({"chat_template": TYPED_TEMPLATE}))
    for own in tmp_path.glob("m/llava/chat_template.jinja"):
        settings = json.loads((tmp_path / "m/llava/tokenizer_config.json").read_text())
        settings["chat_template"] = own.read_text()
        own.unlink()
        (tmp_path / "m/llava/tokenizer_config.json").write_text(json.dumps(settings))
    text = TextEncoder.from_pretrained(model_config(tmp_path / "m"))
    assert text.tokenizer.chat_template == TYPED_TEMPLATE


# ---------------------------------------------------------------- HunyuanVideo


@pytest.fixture
def hunyuan(framework, tiny_models):
    """Diffusers' own pipeline on the framework's parts, with the language model as its text encoder."""
    framework.eval()
    pipeline = HunyuanVideoPipeline(
        text_encoder=framework.mllm.causal_lm.model, tokenizer=AutoTokenizer.from_pretrained(tiny_models / "llava"),
        text_encoder_2=framework.decoder.text_encoder,
        tokenizer_2=AutoTokenizer.from_pretrained(tiny_models / "hunyuan/tokenizer_2"),
        transformer=framework.decoder.transformer, vae=framework.decoder.vae, scheduler=framework.decoder.scheduler,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    template = dict(template=DECODER_TEMPLATE, crop_start=framework.text.crop_start)
    return pipeline, dict(prompt_template=template, max_sequence_length=64)


PROMPTS = ["A small red circle moves to the right.", "Blue.", "A large green square moves up. " * 30]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_conditioning_without_visual_tokens_is_encode_prompt(framework, hunyuan, prompt):
    """Rows, mask and pooled vector; the last prompt is longer than what is kept."""
    pipeline, options = hunyuan
    with torch.no_grad():
        rows, pooled, mask = pipeline.encode_prompt(prompt, **options)
    ours = imagined(framework, prompt, num_tokens=0)
    count = ours.rows.shape[1]
    assert torch.equal(mask[0].bool(), torch.arange(mask.shape[1]) < count) and ours.mask.all()
    torch.testing.assert_close(ours.rows, rows[:, :count], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.pooled, pooled, atol=1e-5, rtol=0)


def test_sampling_without_visual_tokens_is_the_pipeline_s(framework, hunyuan):
    """Same seed, same frames (0..1); the pipeline pads the prompt to its full length, we do not."""
    pipeline, options = hunyuan
    prompt = PROMPTS[0]
    expected = pipeline(
        prompt=prompt, height=32, width=32, num_frames=9, num_inference_steps=3, guidance_scale=6.0,
        generator=torch.Generator().manual_seed(3), output_type="pt", **options,
    ).frames  # fmt: skip
    conditioning = imagined(framework, prompt, num_tokens=0)
    video = framework.decoder.denoise(conditioning, 9, 3, torch.Generator().manual_seed(3))
    torch.testing.assert_close(video, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.01


def test_the_crop_of_the_template_is_its_system_part(framework):
    """Computed from the tokenizer in use: what is left of a prompt begins with the caption."""
    text = framework.text
    kept = text.tokenizer.decode(text.prompt("A red circle.")[text.crop_start :])
    assert kept.startswith("A red circle.")
