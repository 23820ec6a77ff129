"""``training_free`` for LLaVA-Next: a published model answers on VTok's tokens, nothing in between drawn at random."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPVisionModel, LlavaNextForConditionalGeneration

from support.templates import TYPED_TEMPLATE
from support.tiny import make_batch, model_config
from vtok.assembly.build import build_framework, drawn_weights
from vtok.mllm.llama import LLAMA
from vtok.mllm.llava_next import LLAVA_NEXT
from vtok.rows.text import TextEncoder
from vtok.spatial_encoder import pool_grid
from vtok.understanding import understand, video_embeddings

QUESTION = "What moves to the right?"


@pytest.fixture(scope="module")
def framework(tiny_models):
    settings = model_config(tiny_models)
    settings.tokeniser = replace(settings.tokeniser, strategy="training_free")
    return build_framework(settings).eval()


@torch.no_grad()
def test_an_untrained_model_s_answer_is_that_of_transformers_parts_alone(framework, tiny_models):
    """CLIP's own features, pooled, through LLaVA's own projector, in LLaVA's own rows and generation."""
    frames = make_batch(framework, 1).frames[0]
    clip = CLIPVisionModel.from_pretrained(tiny_models / "clip").eval()
    llava = LlavaNextForConditionalGeneration.from_pretrained(tiny_models / "llava").eval()
    pixels = torch.stack([normalised(frame) for frame in frames])
    grids = clip(pixels, output_hidden_states=True).hidden_states[-2][:, 1:].unflatten(1, (8, 8))
    tokens = torch.cat([pool_grid(grids[:1], 4)[0], grids[1:].mean((1, 2))])
    visual = llava.model.multi_modal_projector(tokens)
    torch.testing.assert_close(video_embeddings(framework, frames)[0], visual, atol=1e-5, rtol=0)

    before, after = (torch.tensor([ids]) for ids in framework.text.question(QUESTION))
    embed = llava.get_input_embeddings()
    row = torch.cat([embed(before), visual[None], embed(after)], 1)
    end = framework.text.tokenizer.eos_token_id
    ids = llava.generate(
        inputs_embeds=row, attention_mask=torch.ones(row.shape[:2]), do_sample=False, max_new_tokens=12,
        eos_token_id=end, pad_token_id=end,
    )[0]  # fmt: skip
    answer = framework.text.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert understand(framework, frames, QUESTION, max_new_tokens=12) == answer


def normalised(frame):
    """As CLIP's processor does it, written out."""
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    return (frame / 255 - mean[:, None, None]) / std[:, None, None]


def test_nothing_in_between_is_drawn_at_random(framework, tiny_models):
    """Also P is zero, whatever the seed; of vtok, and of a token of another width, it is said what is."""
    assert drawn_weights(framework) == []
    assert not any(p.any() for p in framework.projection.positions.parameters())
    assert all(name.startswith("tokeniser.motion_encoder.g_phi.") for name in drawn(tiny_models))
    fresh = drawn(tiny_models, strategy="frames", sampled_frames=2, token_dim=48)
    assert {name.split(".")[1] for name in fresh} == {"spatial_encoder", "projector"}


def drawn(tiny_models, **changes):
    settings = model_config(tiny_models)
    settings.tokeniser = replace(settings.tokeniser, **changes)
    names = drawn_weights(build_framework(settings))
    assert names
    return names


SYSTEM = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, and assist the user with a variety of tasks "
    "using natural language.<|eot_id|>"
)
USER = "<|start_header_id|>user<|end_header_id|>\n\n"


@pytest.mark.parametrize("typed", [False, True])
def test_an_untrained_model_is_asked_as_its_card_says(framework, tiny_models, typed):
    """LLaMA-3's LLaVA-Next has a message of the system; a model that trains was never told it."""
    settings = model_config(tiny_models)
    for strategy, system in (("training_free", SYSTEM), ("vtok", "<|begin_of_text|>")):
        settings.tokeniser = replace(settings.tokeniser, strategy=strategy)
        text = TextEncoder.from_pretrained(settings)
        if typed:
            text.tokenizer.chat_template = "<|begin_of_text|>" + TYPED_TEMPLATE
        before, after = text.question(QUESTION)
        assert text.tokenizer.decode(before) == system + USER
        assert text.tokenizer.decode(after).startswith(f"\n{QUESTION}<|eot_id|><|start_header_id|>assistant")


def test_other_language_models_are_not_told_llama_3_s_message(framework):
    assert LLAVA_NEXT.system(framework.text.tokenizer).startswith("You are a helpful language and vision assistant.")
    assert LLAVA_NEXT.system(SimpleNamespace(get_vocab=dict)) is None
    assert LLAMA.system(framework.text.tokenizer) is None


def test_an_answer_ends_at_the_end_of_a_turn_too(tiny_models):
    """LLaMA-3's own tokenizers name the end of a document as their end token, but chats end with <|eot_id|>."""
    text = TextEncoder.from_pretrained(model_config(tiny_models))
    tokenizer = text.tokenizer
    assert text.end_ids == [tokenizer.convert_tokens_to_ids("<|eot_id|>")]
    tokenizer.eos_token = "<|begin_of_text|>"
    again = TextEncoder(tokenizer, None, 64)
    assert again.end_ids == tokenizer.convert_tokens_to_ids(["<|begin_of_text|>", "<|eot_id|>"])
