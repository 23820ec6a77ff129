"""Clips, images and texts in one micro-batch: rows, losses and gradients."""

import pytest
import torch

from support.reference import clip_losses
from support.tiny import TALK, mixed_batch, model_config, part
from vtok.assembly.build import build_framework
from vtok.rows.plan import plan_rows
from vtok.rows.text import Place, mark
from vtok.video_decoder import Posterior


def alone(batch, index):
    """One sample of a batch with its own frames only."""
    own = part(batch, [index])
    return own._replace(frames=own.frames[:, : max(own.frame_counts)])


def test_an_image_has_spatial_tokens_only(framework):
    batch = mixed_batch(framework, "vi")
    assert framework.tokeniser.features(batch.frames, batch.frame_counts).token_counts == [16 + 8, 16]


def test_a_text_has_no_visual_token_and_a_loss_on_every_answer(framework):
    text = mixed_batch(framework, "t").texts[0]
    decode = framework.text.tokenizer.decode
    whole = text.question + text.answer + [token for turn in text.turns for ids in turn for token in ids]
    messages = [{"role": role, "content": said} for role, said in (
        ("user", "What is 1 + 1?"), ("assistant", "Two."), ("user", TALK[0][0]), ("assistant", TALK[0][1]),
        ("user", TALK[1][0]), ("assistant", TALK[1][1]))]  # fmt: skip
    published = framework.text.tokenizer.apply_chat_template(messages, tokenize=False)
    written = framework.text.tokenizer(published, add_special_tokens=False).input_ids
    assert [i for i in whole if i not in framework.text.end_ids] == [
        i for i in written if i not in framework.text.end_ids
    ], (decode(whole), published)
    plan = plan_rows([text], [0], framework.text.crop_start)
    assert plan.row_lengths == [len(whole)] and len(plan.token_ids) == len(whole)
    answers = text.answer + [token for _, answer in text.turns for token in answer]
    assert plan.answer_ids.tolist() == answers and plan.answer_counts.tolist() == [len(answers)]
    assert [plan.token_ids[place + 1].item() for place in plan.answer_from] == answers
    assert decode(answers).split("<|eot_id|>")[:3] == ["Two.", "Four.", "Yes."]


def test_media_stand_where_the_conversation_has_them(framework):
    """The text between them is what the template and the questions say; no generation row has a loss."""
    batch = mixed_batch(framework, "sl")
    text = framework.text
    spoken = text.tokenizer.decode([i for i in batch.texts[0].question if i >= 0])
    assert "\n\nWhat is in the two?\n Say it.<|eot_id|>" in spoken  # this template writes a line break behind a medium
    marks = [[i for i in ids if i < 0] for ids in (batch.texts[0].question, batch.texts[0].turns[0][0])]
    assert marks == [[mark(0), mark(1)], [mark(2)]]
    counts = framework.tokeniser.features(batch.frames, batch.frame_counts).token_counts
    assert counts == [24, 16, 16, 16, 20]
    plan = plan_rows(batch.texts, counts, text.crop_start, media_counts=batch.media_counts)
    lengths = [sum(n for _, n in row) for row in plan.row_parts]
    assert len(plan.row_parts) == 2 and lengths == plan.row_lengths
    assert [[p.medium for p in row if p.medium is not None] for row in plan.row_parts] == [[0, 1, 2], [3, 4]]
    visual = (plan.source >= len(plan.token_ids)).sum()
    assert visual == sum(counts) and len(plan.visual_from) == 0


def test_a_medium_at_the_beginning_stands_where_the_template_has_it(framework):
    text = framework.text
    alone = text.sample("", "What is it?", "A ball.", 0, (), "several", [Place(0, 0)])
    assert alone == text.sample("", "What is it?", "A ball.", 0)


def test_a_literal_placeholder_in_a_text_is_text(framework):
    row = framework.text.sample("", "What does <image> mean?", "<image>", 0, (), "several", [Place(0, 0)])
    token = framework.text.tokenizer.convert_tokens_to_ids("<image>")
    assert token not in row.question + row.answer and [i for i in row.question if i < 0] == [mark(0)]
    assert framework.text.tokenizer.decode([i for i in row.question if i >= 0]).count("<image>") == 1


def test_turns_past_the_limit_are_left_out(framework):
    say = framework.text.sample
    many = say("", "Hello?", "Hi.", 0, TALK * 2000, "several", [Place(0, 0), Place(4000, 0)])
    assert many.cut and 0 < len(many.turns) < 4000
    assert sum(len(ids) for turn in many.turns for ids in turn) <= framework.text.max_text_tokens


def test_a_sample_without_a_caption_has_no_generation_row(framework):
    batch = mixed_batch(framework, "vq")
    plan = plan_rows(batch.texts, [24, 19], framework.text.crop_start)
    assert len(plan.row_lengths) == 3 and plan.shared_row is None
    assert plan.visual_counts.tolist() == [24, 0]
    assert (plan.conditioning_start[1], plan.conditioning_rows[1]) == (plan.row_lengths[0], 1)


@pytest.mark.parametrize("kinds", ["vitq", "slvs", "dpvp"])
def test_losses_of_a_mix_equal_those_of_its_samples_alone(framework, kinds):
    """Also those of the plain reference."""
    batch = mixed_batch(framework, kinds)
    mixed = framework(batch, reduce=False)
    for index in range(4):
        own = framework(alone(batch, index), reduce=False)
        for name in ("loss", "loss_under", "loss_vis_lm", "loss_dec"):
            torch.testing.assert_close(mixed[name][index], own[name][0], atol=1e-5, rtol=1e-5)
    for index, text in enumerate(batch.texts):
        under, predicted, decoded = clip_losses(framework, batch, index)
        reference = under, predicted * text.predicts, decoded * text.decodes
        found = [mixed[name][index] for name in ("loss_under", "loss_vis_lm", "loss_dec")]
        torch.testing.assert_close(torch.stack(found), torch.stack(reference), atol=1e-5, rtol=1e-5)
    assert [loss > 0 for loss in mixed["loss_under"]] == [kind != "d" for kind in kinds]
    assert [loss > 0 for loss in mixed["loss_dec"]] == [kind in "vid" for kind in kinds]
    assert [loss != 0 for loss in mixed["loss_vis_lm"]] == [kind in "vip" for kind in kinds]


@pytest.mark.parametrize("counted", [(1, 3), (0,), ()])
def test_the_decoder_runs_for_the_samples_of_a_tensor_that_it_trains(framework, monkeypatch, counted):
    """For one at least, since every rank runs it. Losses and gradients are those of the clips one by one."""
    batch = mixed_batch(framework, "vvvv")
    texts = [
        text if place in counted else framework.text.counted(text, ["under", "vis_lm"])
        for place, text in enumerate(batch.texts)
    ]
    listed = batch._replace(texts=texts)
    at_once = listed._replace(video=torch.cat(batch.video))
    stored = listed._replace(video=Posterior(*(torch.cat(x) for x in zip(*map(framework.decoder.encode, batch.video)))))
    seen, forward = [], framework.decoder.transformer.forward

    def noted(hidden_states, **others):
        seen.append(len(hidden_states))
        return forward(hidden_states, **others)

    monkeypatch.setattr(framework.decoder.transformer, "forward", noted)
    found = []
    for own, runs in ((listed, [1] * 4), (at_once, [len(counted) or 1]), (stored, [len(counted) or 1])):
        seen.clear()
        framework.zero_grad()
        losses = framework(own, reduce=False)
        losses["loss"].sum().backward()
        assert seen == runs and [loss > 0 for loss in losses["loss_dec"]] == [place in counted for place in range(4)]
        found.append(
            [losses["loss_dec"].detach(), *(p.grad.clone() for p in framework.parameters() if p.requires_grad)]
        )
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


def test_what_stands_in_for_a_video_changes_nothing(framework):
    batch = mixed_batch(framework, "tq")
    before = framework(batch)["loss"]
    noise = [torch.randint(0, 256, video.shape, dtype=torch.uint8) for video in batch.video]
    frames = batch.frames.clone()
    frames[0] = 255
    torch.testing.assert_close(framework(batch._replace(video=noise, frames=frames))["loss"], before)


@pytest.mark.parametrize("kinds", ["t", "q", "d", "p", "s", "tt", "ti", "vt", "ls"])
@pytest.mark.parametrize("head", ["gmm", "mse", "flow"])
def test_every_trainable_parameter_gets_a_gradient_from_any_mix(tiny_models, kinds, head):
    config = model_config(tiny_models)
    config.visual_head.kind = head
    framework = build_framework(config)
    out = framework(mixed_batch(framework, kinds))
    out["loss"].backward()
    assert out["loss"].isfinite()
    for name, parameter in framework.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert not parameter.requires_grad or parameter.grad.isfinite().all(), name


def test_the_transformer_computes_no_padding(framework, monkeypatch):
    """Stored latents may be of padded videos."""
    batch, seen = mixed_batch(framework), []
    padded = [torch.cat([video, video[:, -1:].expand(-1, 9 - video.shape[1], -1, -1, -1)], 1) for video in batch.video]
    forward = framework.decoder.transformer.forward

    def noted(hidden_states, **others):
        seen.append(tuple(hidden_states.shape[2:]))
        return forward(hidden_states=hidden_states, **others)

    monkeypatch.setattr(framework.decoder.transformer, "forward", noted)
    framework(batch._replace(video=padded))
    assert seen == [(3, 4, 4), (1, 6, 4), (1, 4, 4), (1, 4, 4)]


def test_stored_latents_give_the_loss_of_their_videos(framework):
    batch = mixed_batch(framework)
    stored = [framework.decoder.encode(video) for video in batch.video]
    assert all(isinstance(own, Posterior) for own in stored)
    torch.testing.assert_close(framework(batch._replace(video=stored))["loss"], framework(batch)["loss"])
