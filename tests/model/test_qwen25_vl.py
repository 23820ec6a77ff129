"""Qwen2.5-VL on all of its tokens and on VTok's, against transformers' own model on the same video."""

from dataclasses import replace

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from support.tiny import CAPTIONS, make_batch, part, qwen_config
from vtok.assembly.build import build_framework, drawn_weights
from vtok.assembly.pretrained import from_pretrained, save_pretrained
from vtok.assembly.tiny import write_tiny_models
from vtok.config import ConfigError, LossConfig, ModelConfig, VTokConfig
from vtok.feature_extractor.qwen25_vl import patchify
from vtok.feature_scale import FeatureScale
from vtok.generation import generate
from vtok.mllm.mrope import row_positions
from vtok.mllm.qwen25_vl import VIDEO_TOKEN
from vtok.rows.plan import assemble, plan_rows
from vtok.rows.text import Place, RowText, mark
from vtok.understanding import answer_losses, generated_answer, understand, understand_several, video_embeddings

QUESTION = "What moves to the right?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Qwen2.5-VL whose attention is uneven enough for its answers to depend on positions."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_models(folder, CAPTIONS, mllm="qwen2.5-vl")
    model = library(folder)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith(("q_proj.weight", "k_proj.weight", "qkv.weight")):
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder / "qwen")
    return folder


def library(folder):
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "qwen").eval()


def framework_of(folder, **tokeniser):
    torch.manual_seed(0)
    return build_framework(qwen_config(folder, **tokeniser)).eval()


def video(num_frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, 3, 112, 112), dtype=torch.uint8, generator=generator)


def library_inputs(model, text, frames):
    """What the library takes of the question and of a video at 4 frames per second, its first frame doubled."""
    clip = patchify(torch.cat([frames[:1], frames]), model.config.vision_config)
    before, after = text.question(QUESTION)
    visual = [text.tokenizer.convert_tokens_to_ids(VIDEO_TOKEN)] * clip.tokens(model.config.vision_config)
    ids = torch.tensor([[*before, *visual, *after]])
    return dict(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values_videos=clip.patches,
        mm_token_type_ids=torch.where(ids == model.config.video_token_id, 2, 0), video_grid_thw=clip.grid,
        second_per_grid_ts=torch.tensor([2 / 4]),
    )  # fmt: skip


def asked(framework, frames):
    """The understanding row of a clip without an answer: embeddings and positions."""
    before, after = framework.text.question(QUESTION)
    text = RowText([*before, mark(0), *after], answer=[], prompt=[], decoder_ids=[], predicts=False, decodes=False)
    visual = framework.projection(framework.tokeniser(frames[None]))
    plan = plan_rows([text], [visual.shape[1]], 0, generation=False)
    rows = assemble(plan, framework.mllm.embed(plan.token_ids), visual)
    return rows, framework.positions(plan.row_parts, [len(frames)])


# ---------------------------------------------------------------- all tokens kept


@torch.no_grad()
def test_with_all_tokens_kept_the_logits_and_the_answer_are_the_library_s(folder):
    framework, model = framework_of(folder, strategy="frames", sampled_frames=3), library(folder)
    frames = video(5)
    inputs = library_inputs(model, framework.text, frames)
    rows, positions = asked(framework, frames)
    assert torch.equal(positions, model.model.get_rope_index(**inputs)[0])
    expected = model(**inputs).logits
    logits = framework.mllm.lm_head(framework.mllm(rows, positions=positions).last)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    counted = framework.mllm.lm_head(framework.mllm(rows).last)
    assert (counted - expected).abs().max() > 1e-3  # the tiny model can tell its positions apart

    ids = model.generate(**inputs, do_sample=False, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
    answer = framework.text.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert understand(framework, frames, QUESTION, max_new_tokens=12) == answer
    visual = video_embeddings(framework, frames)
    own, _ = answer_losses(framework, visual, [len(frames)], QUESTION, ["Blue.", "A longer answer beside it."])
    answered = torch.cat([inputs["input_ids"], torch.tensor([framework.text.answer("Blue.")])], 1)
    types = torch.where(answered == model.config.video_token_id, 2, 0)
    longer = inputs | dict(input_ids=answered, attention_mask=torch.ones_like(answered), mm_token_type_ids=types)
    log_p = model(**longer).logits[0, inputs["input_ids"].shape[1] - 1 : -1].log_softmax(-1)
    expected = -log_p.gather(1, answered[0, -len(own) :, None])[:, 0]
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_video_of_more_time_than_cells(folder):
    """Text goes on behind the last time; the library's rule for it forgets time, all else is the same."""
    framework, model = framework_of(folder, strategy="frames", sampled_frames=7), library(folder)
    frames = video(13)
    inputs = library_inputs(model, framework.text, frames)
    rows, positions = asked(framework, frames)
    theirs = model.model.get_rope_index(**inputs)[0]
    before, after = map(len, framework.text.question(QUESTION))
    text = positions.shape[-1] - after
    assert torch.equal(positions[..., :text], theirs[..., :text])
    assert positions[:, 0, text].tolist() == [before + 7] * 3 and theirs[:, 0, text].tolist() == [before + 4] * 3
    expected = model(**inputs, position_ids=positions).logits
    logits = framework.mllm.lm_head(framework.mllm(rows, positions=positions).last)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


# ---------------------------------------------------------------- VTok's tokens


@torch.no_grad()
def test_tokens_are_the_first_patch_s_and_the_mean_of_each_later_one_s(folder):
    """Of the library's own features; the fine-tuned form begins as the training-free one, to the last bit."""
    model, frames = library(folder), video(5)
    fine_tuned, training_free = framework_of(folder), framework_of(folder, strategy="training_free")
    inputs = library_inputs(model, fine_tuned.text, frames)
    (theirs,) = model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"]).pooler_output
    expected = torch.cat([theirs[:16], theirs[16:].view(2, 16, -1).mean(1)])
    tokens = training_free.tokeniser(frames[None])
    torch.testing.assert_close(tokens[0], expected, atol=1e-5, rtol=0)
    assert torch.equal(fine_tuned.tokeniser(frames[None]), tokens)
    assert torch.equal(fine_tuned.projection(tokens), tokens)
    assert drawn_weights(training_free) == drawn_weights(fine_tuned) == []
    for own in (fine_tuned, training_free):
        assert understand(fine_tuned, frames, QUESTION, 8) == understand(own, frames, QUESTION, 8)


def test_the_fine_tuned_token_moves_with_the_residual(folder):
    """token = mean of the key frame + g(residual): the trained part of g sees the residual and nothing else."""
    encoder = framework_of(folder, residual_grid=2).tokeniser.motion_encoder
    torch.nn.init.normal_(encoder.g_phi[-1].weight)
    key, later, shift = torch.randn(3, 1, 4, 4, 64)
    scale = FeatureScale(encoder.residual_dim)
    scale.set(torch.randn_like(scale.mean), torch.rand_like(scale.std) + 0.5)
    mean = later.mean((1, 2))
    change = encoder(encoder.pool(later, key), scale) - mean
    assert change.abs().max() > 1e-2
    moved = encoder(encoder.pool(later + shift, key + shift), scale) - (later + shift).mean((1, 2))
    torch.testing.assert_close(moved, change, atol=1e-4, rtol=1e-4)
    residual = scale.standardise(encoder.pool(later, key))[:, 64:]
    torch.testing.assert_close(change, encoder.g_phi(residual), atol=1e-5, rtol=1e-5)


def test_positions_of_vtok_s_tokens(folder):
    """A grid at the key frame's time, then a time of its own for each later token, then text behind the largest."""
    framework = framework_of(folder)
    _, positions = asked(framework, video(11))
    before, after = map(len, framework.text.question(QUESTION))
    grid = [[before, before + row, before + column] for row in range(4) for column in range(4)]
    later = [[before + step, before, before] for step in range(1, 6)]
    text = [[place] * 3 for place in [*range(before), *range(before + 6, before + 6 + after)]]
    assert positions[:, 0].T.tolist() == text[:before] + grid + later + text[before:]


@pytest.mark.parametrize("fps, stride, times", [(2, 2, [2, 4, 6]), (12, 2, [0, 0, 1]), (4, 3, [1, 3, 4])])
def test_times_follow_the_model_s_positions_per_second(folder, fps, stride, times):
    """Two positions a second, rounded down as the library does."""
    framework = framework_of(folder, fps=fps, motion_stride=stride)
    assert framework.clip_positions(19, 3 * stride + 1)[0, 16:].tolist() == times


def test_text_goes_on_behind_each_of_several_videos():
    videos = [torch.tensor([[0, 5], [0, 1], [0, 1]]), torch.zeros(3, 0, dtype=torch.long), torch.ones(3, 1).long()]
    assert row_positions([2, *videos, 2])[0].tolist() == [0, 1, 2, 7, 9, 10, 11]
    assert row_positions([2, *videos, 2])[1].tolist() == [0, 1, 2, 3, 9, 10, 11]


@torch.no_grad()
def test_several_videos_stand_where_the_published_template_has_them(folder):
    """Token by token, in two turns; and every video has times of its own."""
    framework = framework_of(folder)
    text, video_id = framework.text, framework.text.tokenizer.convert_tokens_to_ids(VIDEO_TOKEN)
    row = text.sample(
        "", "One. Two?", "Yes.", 0, [("Three?", "No.")], "several", [Place(0, 0), Place(0, 4), Place(1, 6)]
    )
    shown, said = {"type": "video"}, ("One.", " Two?", "Yes.", "Three?", "No.")
    one, two, yes, three, no = ({"type": "text", "text": words} for words in said)
    published = text.tokenizer.apply_chat_template([
        {"role": "user", "content": [shown, one, shown, two]}, {"role": "assistant", "content": [yes]},
        {"role": "user", "content": [three, shown]}, {"role": "assistant", "content": [no]},
    ], tokenize=False)  # fmt: skip
    ids = [*row.question, *row.answer, *row.turns[0][0], *row.turns[0][1]]
    written = text.tokenizer(published, add_special_tokens=False).input_ids
    assert [video_id if i < 0 else i for i in ids] == written[: len(ids)] and len(written) <= len(ids) + 1
    parts = plan_rows([row], [18, 16, 17], 0, generation=False, media_counts=[3]).row_parts
    positions = framework.positions(parts, [5, 1, 3])[:, 0]
    assert positions.shape == (3, sum(part.length for part in parts[0]))
    starts = [sum(part.length for part in parts[0][:n]) for n, part in enumerate(parts[0]) if part.medium is not None]
    assert all(positions[0, start] == positions[0, start - 1] + 1 for start in starts)


@torch.no_grad()
def test_an_answer_about_several_videos_depends_on_each_and_on_their_places(folder):
    """About one at the beginning it is the answer about that video."""
    framework, asked = framework_of(folder), "Which moves?"
    seen = []
    generate_ = framework.mllm.causal_lm.generate

    def noted(**inputs):
        seen.append((inputs["inputs_embeds"], inputs["position_ids"]))
        return generate_(**inputs)

    framework.mllm.causal_lm.generate = noted
    one, two = video(5), video(3, seed=1)
    assert understand_several(framework, [one], asked, max_new_tokens=4) == understand(framework, one, asked, 4)
    for ours, theirs in zip(*seen):
        torch.testing.assert_close(ours, theirs)
    for media, at in (([one, two], None), ([two, one], None), ([one, two], [0, 5])):
        understand_several(framework, media, asked, at, max_new_tokens=1)
    same, swapped, moved = (embeddings for embeddings, _ in seen[2:])
    assert same.shape == swapped.shape == moved.shape and same.shape[1] > seen[0][0].shape[1] + 16
    assert not torch.equal(same, swapped) and not torch.equal(same, moved)


def test_a_long_video_in_parts_is_answered(folder):
    framework = framework_of(folder)
    frames = video(12)
    assert video_embeddings(framework, frames, key_frame_every=1.0).shape[1] == 3 * (16 + 1)
    assert isinstance(understand(framework, frames, QUESTION, 4, key_frame_every=1.0), str)
    features = framework.tokeniser.features(frames[None])
    assert understand(framework, features, QUESTION, 8, num_frames=12) == understand(framework, frames, QUESTION, 8)


@torch.no_grad()
def test_answers_have_losses_after_several_parts_and_without_a_video(folder):
    """The text goes on behind the last part, and behind nothing if there is no video."""
    framework = framework_of(folder)
    visual = video_embeddings(framework, video(12), key_frame_every=1.0)
    for shown, counts in ((visual, [4, 4, 4]), (visual[:, :0], [])):
        together = answer_losses(framework, shown, counts, QUESTION, ["Blue.", "A longer answer beside it."])
        for answer, loss in zip(("Blue.", "A longer answer beside it."), together, strict=True):
            (alone,) = answer_losses(framework, shown, counts, QUESTION, [answer])
            torch.testing.assert_close(loss, alone, atol=1e-5, rtol=1e-5)
        assert isinstance(generated_answer(framework, shown, counts, QUESTION, 4), str)


# ---------------------------------------------------------------- training


@torch.no_grad()
@pytest.mark.parametrize("strategy", [dict(), dict(strategy="frames", sampled_frames=3)])
def test_packed_rows_are_separate_rows(folder, strategy):
    framework = framework_of(folder, **strategy)
    batch = make_batch(framework, size=112)
    together = framework(batch, reduce=False)["loss_under"]
    alone = torch.cat([framework(part(batch, [clip]), reduce=False)["loss_under"] for clip in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    other = batch.frames.clone()
    other[2] = 255 - other[2]
    changed = framework(batch._replace(frames=other), reduce=False)["loss_under"] != together
    assert changed.tolist() == [False, False, True, False]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_learns_and_its_tower_does_not(folder, checkpointing):
    settings = qwen_config(folder)
    settings.mllm.gradient_checkpointing = checkpointing
    framework = build_framework(settings).train()
    assert framework.decoder is None and not framework.visual_head
    assert set(framework.tokeniser.feature_scale) == {"spatial", "motion"}  # which g_phi reads the residual in
    assert not framework.tokeniser.feature_extractor.training
    batch = make_batch(framework, 2, size=112)
    optimiser = torch.optim.AdamW([p for p in framework.parameters() if p.requires_grad], lr=1e-3)
    curve = []
    for _ in range(8):
        optimiser.zero_grad()
        losses = framework(batch)
        losses["loss"].backward()
        optimiser.step()
        curve.append(losses["loss_under"].item())
    assert curve[-1] < curve[0] - 0.5 and losses["loss_vis_lm"] == losses["loss_dec"] == 0
    tower = [p for name, p in framework.named_parameters() if name.startswith("tokeniser.feature_extractor.")]
    trained = [p for p in framework.parameters() if p.requires_grad]
    assert len(tower) > 20 and all(not p.requires_grad and p.grad is None for p in tower)
    assert all(p.grad is not None for p in trained) and len(trained) + len(tower) == len(list(framework.parameters()))
    assert framework.tokeniser.motion_encoder.g_phi[-1].weight.any()


def test_what_it_does_not_do_is_one_clear_line(folder):
    good = qwen_config(folder)
    for loss in (LossConfig(dec=0), LossConfig(vis_lm=0)):
        with pytest.raises(ConfigError, match="understands only: set loss.vis_lm and loss.dec to 0"):
            replace(good, loss=loss)
    for wrong in (dict(tokeniser=VTokConfig()), dict(mllm=ModelConfig().mllm)):
        with pytest.raises(ConfigError, match="go together"):
            replace(good, **wrong)
    with pytest.raises(ConfigError, match="first frame as key frame"):
        qwen_config(folder, key_frame_idx=3)
    with pytest.raises(ConfigError, match="a motion token of two frames"):
        qwen_config(folder, motion_stride=1)
    with pytest.raises(ConfigError, match="width of Qwen2.5-VL's own tokens, 64"):
        framework_of(folder, token_dim=32)
    with pytest.raises(ConfigError, match="needs tokeniser.weights"):
        framework_of(folder, weights=None)
    with pytest.raises(ConfigError, match="understands only"):
        generate(framework_of(folder), "A red circle", 1.0)


def test_a_saved_framework_is_the_same_and_opens_as_qwen(folder, tmp_path):
    framework = framework_of(folder)
    with torch.no_grad():
        for parameter in framework.parameters():
            if parameter.requires_grad:
                parameter += 0.01 * torch.randn_like(parameter)
    save_pretrained(framework, tmp_path / "model")
    again = from_pretrained(tmp_path / "model").eval()
    state, expected = again.state_dict(), framework.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)
    assert understand(again, video(5), QUESTION, 8) == understand(framework, video(5), QUESTION, 8)

    opened = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "model")
    language, tower = framework.mllm.causal_lm.model.state_dict(), framework.tokeniser.feature_extractor.tower
    assert all(torch.equal(value, language[n]) for n, value in opened.model.language_model.state_dict().items())
    assert torch.equal(opened.lm_head.weight, framework.mllm.lm_head.weight)
    assert all(torch.equal(value, tower.state_dict()[n]) for n, value in opened.model.visual.state_dict().items())
