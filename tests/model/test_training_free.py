"""``training_free`` for LLaVA-Next: a published model answers on VTok's tokens, nothing in between drawn at random."""

from dataclasses import replace

import pytest
import torch
from transformers import CLIPVisionModel, LlavaNextForConditionalGeneration

from support.tiny import make_batch, model_config
from vtok.assembly.build import build_framework, drawn_weights
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
