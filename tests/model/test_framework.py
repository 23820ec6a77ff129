import random
from dataclasses import replace

import pytest
import torch

from support.reference import clip_losses, global_loss
from support.tiny import CAPTIONS, imagined, make_batch, model_config, part, sides
from vtok import visual_sampling
from vtok.assembly.build import build_framework
from vtok.config import ConfigError, LossConfig, VisualHeadConfig, VTokConfig
from vtok.generation import generate, generate_batch
from vtok.mllm.packed_attention import whole_rows
from vtok.rows.plan import assemble, plan_rows
from vtok.understanding import understand, video_embeddings


def calibrated(framework):
    """Statistics other than 0 and 1, so that standardising shows."""
    for scale in framework.tokeniser.feature_scale.values():
        scale.set(torch.randn_like(scale.mean) * 0.1, torch.rand_like(scale.std) + 0.5)
    return framework


def test_losses_and_gradients_against_the_reference(framework):
    """Captions and clips of unequal length packed into one batch, against every row run alone."""
    calibrated(framework)
    batch = make_batch(framework)
    losses = framework(batch)
    losses["loss"].backward()
    gradients = {name: p.grad.clone() for name, p in framework.named_parameters() if p.requires_grad}
    expected = torch.stack([torch.stack(clip_losses(framework, batch, clip)) for clip in range(4)]).mean(0)
    for name, value in zip(("loss_under", "loss_vis_lm", "loss_dec"), expected):
        torch.testing.assert_close(losses[name], value, atol=1e-5, rtol=1e-5)

    framework.zero_grad(set_to_none=True)
    global_loss(framework, batch).backward()
    for name, parameter in framework.named_parameters():
        if parameter.requires_grad:
            reference = parameter.grad
            error = (gradients[name] - reference).norm()
            assert error <= 1e-5 * reference.norm() or error <= 1e-8, (name, error, reference.norm())


def test_losses_can_be_had_per_sample(framework):
    """They do not depend on a sample's batch mates, nor does the weighted sum."""
    batch = make_batch(framework)
    of_each, mean = framework(batch, reduce=False), framework(batch)
    for name in ("loss", "loss_under", "loss_vis_lm", "loss_dec"):
        alone = torch.stack([framework(part(batch, [clip]))[name] for clip in range(4)])
        torch.testing.assert_close(of_each[name], alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(of_each[name].mean(), mean[name])


def test_the_loss_is_the_weighted_sum(tiny_models):
    framework = build_framework(model_config(tiny_models, loss=LossConfig(under=0.5, vis_lm=2.0, dec=3.0)))
    out = framework(make_batch(framework))
    torch.testing.assert_close(out["loss"], 0.5 * out["loss_under"] + 2 * out["loss_vis_lm"] + 3 * out["loss_dec"])


def test_micro_batches_average_to_the_batch(framework):
    batch = make_batch(framework)
    whole = framework(batch)
    halves = [framework(part(batch, clips)) for clips in ([0, 1], [2, 3])]
    for name in ("loss", "loss_under", "loss_vis_lm", "loss_dec"):
        torch.testing.assert_close((halves[0][name] + halves[1][name]) / 2, whole[name], atol=1e-5, rtol=1e-5)


CASES = {
    "all": (LossConfig(), {}),
    "understanding only": (LossConfig(vis_lm=0, dec=0), {}),
    "generation only": (LossConfig(under=0), {}),
    "no decoder loss": (LossConfig(dec=0), {}),
    "no visual loss": (LossConfig(vis_lm=0), {}),
    "no answer and no visual target": (LossConfig(), dict(captions=[None] * 2)),
    "no motion token": (LossConfig(), dict(captions=CAPTIONS[:2], frame_counts=[1, 1])),
}


@pytest.mark.parametrize("backbone", ["clip", "vgg19"])
@pytest.mark.parametrize("case", CASES)
def test_every_trainable_parameter_gets_a_gradient(tiny_models, case, backbone):
    loss, options = CASES[case]
    config = model_config(tiny_models, loss=loss)
    if backbone == "vgg19":
        vgg = VTokConfig(backbone="vgg19", vgg_layer_index=7, token_dim=96, fps=4, motion_tokens_per_second=4)
        config = replace(config, tokeniser=vgg)
    framework = build_framework(config)
    batch = make_batch(framework, count=2, **options)
    out = framework(batch)
    out["loss"].backward()
    assert out["loss"].isfinite()
    missing = [name for name, p in framework.named_parameters() if p.requires_grad and p.grad is None]
    frozen = [name for name, p in framework.named_parameters() if not p.requires_grad and p.grad is not None]
    assert not missing and not frozen


def test_what_trains_and_what_is_frozen(framework):
    trainable = {name.split(".")[0] + "." + name.split(".")[1]
                 for name, p in framework.named_parameters() if p.requires_grad}  # fmt: skip
    assert trainable == {
        "mllm.causal_lm", "projection.projector", "projection.positions", "tokeniser.motion_encoder",
        "visual_head.spatial", "visual_head.motion",
    }  # fmt: skip
    assert all(p.requires_grad for p in framework.mllm.parameters())
    assert not any(p.requires_grad for p in framework.tokeniser.feature_extractor.parameters())


def test_a_question_replaces_the_instruction_and_a_missing_caption_costs_only_its_losses(framework):
    text = framework.text
    asked = text.sample(None, "What colour is it?", "Red.", 0)
    decode = text.tokenizer.decode
    assert "What colour is it?" in decode(sides(asked)[1]) and decode(asked.answer) == "Red.<|eot_id|>"
    assert not asked.captioned
    captioned = text.sample("A red circle.", None, None, 3)
    assert decode(captioned.answer) == "A red circle.<|eot_id|>"
    assert "A red circle." in decode(captioned.prompt) and captioned.captioned
    instructions = {decode(sides(text.sample("A.", None, None, i))[1]) for i in range(30)}
    assert len(instructions) >= 10

    batch = make_batch(framework, 1)._replace(texts=[asked])
    out = framework(batch)
    assert out["loss_under"] > 0 and out["loss_vis_lm"] == 0 and out["loss_dec"] == 0


def test_visual_tokens_stand_before_the_instruction(framework):
    """Eq. 6: [V, instruction, answer], in the chat template; spatial tokens before motion tokens."""
    text = framework.text.sample("Yes.", "What moves?", "Yes.", 0)
    plan = plan_rows([text], [18], framework.text.crop_start)
    row, first_visual = plan.source[: plan.row_lengths[0]], len(plan.token_ids)
    kinds = ["visual" if s >= first_visual else "text" for s in row.tolist()]
    before, after = sides(text)
    length = len(before) + 18 + len(after) + len(text.answer)
    assert kinds == ["text"] * len(before) + ["visual"] * 18 + ["text"] * (length - 18 - len(before))
    assert "What moves?" in framework.text.tokenizer.decode(after)
    assert row[len(before)] == first_visual
    # Only answer and end token carry loss, each predicted from the position before it.
    assert plan.answer_ids.tolist() == text.answer
    assert plan.answer_from.tolist() == list(range(length - len(text.answer) - 1, length - 1))
    # The first visual token is predicted from the last prompt position.
    assert plan.visual_from.tolist() == list(range(length + len(text.prompt) - 1, length + len(text.prompt) + 17))


def packed_states(framework, batch):
    """Last hidden states of each whole row of a batch, those of understanding first."""
    features = framework.tokeniser.features(batch.frames, batch.frame_counts)
    visual = framework.projection(framework.tokeniser.encode(features))
    plan = plan_rows(batch.texts, features.token_counts, framework.text.crop_start)
    packing = plan.row_lengths, plan.shared_row
    hidden = framework.mllm(assemble(plan, framework.mllm.embed(plan.token_ids), visual), *packing)
    rows = whole_rows(hidden.last[0], *packing, dim=0)
    return [row for number, row in enumerate(rows) if number != plan.shared_row]


def test_no_row_sees_another(framework):
    """Batch mates, the rows' order: each row as if alone, its positions from zero on."""
    batch = part(make_batch(framework), [2, 0, 3, 1])
    together = packed_states(framework, batch)
    for clip in range(4):
        alone = packed_states(framework, part(batch, [clip]))
        for row, row_alone in zip((together[clip], together[4 + clip]), alone):
            torch.testing.assert_close(row, row_alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shared", [None, 1, 2])
def test_packed_rows_equal_each_row_through_the_model_unpacked(framework, shared):
    """And one sequence under a dense mask, values and gradients; with a row that those behind it go on from, too."""
    lengths = [5, 1, 17, 8]
    packed = torch.randn(1, sum(lengths), framework.mllm.dim)
    row = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    goes_on = torch.zeros(31, dtype=torch.bool) if shared is None else row > shared
    seen = (row[:, None] == row) | (goes_on[:, None] & (row == shared))
    seen &= torch.ones(31, 31, dtype=torch.bool).tril()
    positions = seen.sum(1)[None] - 1

    def alone(x):
        rows = whole_rows(x, lengths, shared, dim=1)
        return torch.cat([framework.mllm(one).last[:, -length:] for one, length in zip(rows, lengths)], dim=1)

    runs = {
        "ours": lambda x: framework.mllm(x, lengths, shared).last,
        "alone": alone,
        "dense": lambda x: (
            framework.mllm.causal_lm.model(
                inputs_embeds=x, attention_mask=seen[None, None], position_ids=positions
            ).last_hidden_state
        ),
    }
    outputs = {}
    for name, run in runs.items():
        x = packed.clone().requires_grad_()
        states = run(x)
        outputs[name] = states.detach(), *torch.autograd.grad(states.square().sum(), x)
    for name in ("alone", "dense"):
        torch.testing.assert_close(outputs["ours"], outputs[name], atol=1e-4, rtol=1e-5)


def test_what_prompts_begin_with_is_in_a_batch_once(framework):
    """At most what the decoder never sees; with other beginnings, or in a batch of one, nothing."""
    crop, batch = framework.text.crop_start, make_batch(framework)
    (one, *_), size = batch.texts, len(batch.texts)
    plan = plan_rows(batch.texts, [18] * size, crop)
    assert plan.shared_row == size and plan.row_lengths[size] == crop and len(plan.row_lengths) == 2 * size + 1
    assert plan.token_ids[plan.source[sum(plan.row_lengths[:size]) :][:crop]].tolist() == one.prompt[:crop]
    assert plan_rows([one], [18], crop).shared_row is None
    assert plan_rows(batch.texts, [18] * size, crop, generation=False).shared_row is None
    other = one._replace(prompt=[*one.prompt[:7], one.prompt[7] + 1, *one.prompt[8:]])
    assert plan_rows([one, other], [18, 18], crop).row_lengths[2] == 7
    other = one._replace(prompt=[one.prompt[0] + 1, *one.prompt[1:]])
    assert plan_rows([one, other], [18, 18], crop).shared_row is None


def test_the_language_model_s_padded_and_cached_uses_keep_their_masks(framework):
    """Its attention is ours also outside training: left padding in ``generate``, several tokens after a cache."""
    model = framework.mllm.causal_lm
    ids = torch.randint(5, 200, (1, 9))
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    options = dict(max_new_tokens=4, do_sample=False, pad_token_id=0)
    alone = model.generate(ids, **options)[:, 9:]
    beside = model.generate(padded, attention_mask=(torch.arange(12) >= 3).long()[None], **options)[:, 12:]
    assert torch.equal(alone, beside)
    with torch.no_grad():
        embeddings = framework.mllm.embed(ids)
        first = framework.mllm(embeddings[:, :4], use_cache=True)
        rest = framework.mllm(embeddings[:, 4:], cache=first.cache, use_cache=True)
        torch.testing.assert_close(rest.last, framework.mllm(embeddings).last[:, 4:], atol=1e-5, rtol=1e-5)


def test_next_to_no_token_of_a_shuffled_stream_is_wasted(framework):
    """Captions of 5 to 120 words, clips of many lengths: what the language model runs on, against the rows' tokens."""
    draws = random.Random(0)
    words = " ".join(CAPTIONS).split()
    ran = []
    hook = framework.mllm.causal_lm.model.register_forward_pre_hook(
        lambda _, args, options: ran.append(options["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    needed = 0
    for _ in range(8):
        captions = [" ".join(draws.choices(words, k=draws.randint(5, 120))) for _ in range(4)]
        batch = make_batch(framework, 4, captions, frame_counts=[draws.randint(1, 9) for _ in range(4)])
        out = framework(batch, with_decoder=False)
        own = [len(t.question) - 1 + len(t.answer) + len(t.prompt) for t in batch.texts]
        needed += sum(own) - (len(own) - 1) * framework.text.crop_start  # all prompts begin alike
        needed += 2 * sum(16 + count - 1 for count in batch.frame_counts)
    hook.remove()
    assert len(ran) == 8 and out["tokens"] == ran[-1]
    assert 0.98 <= needed / sum(ran) <= 1


def test_encoders_without_weights_change_no_loss_of_batches_that_bring_features_and_latents(framework, tiny_models):
    torch.manual_seed(0)
    lean = build_framework(model_config(tiny_models), without={"feature_extractor", "autoencoder"}).train()
    counts = lean.parameter_counts()
    assert counts["feature_extractor"] == counts["autoencoder"] == 0 < counts["diffusion_transformer"]
    batch = make_batch(framework)
    features = framework.tokeniser.features(batch.frames, batch.frame_counts)
    encoded = batch._replace(frames=features, video=framework.decoder.encode(batch.video))
    expected = framework(batch)
    for name, loss in lean(encoded).items():
        torch.testing.assert_close(loss, expected[name], atol=0, rtol=1e-6)


def test_positions_start_at_zero_and_leave_the_pretrained_model_alone(framework):
    assert all(not p.any() for p in framework.projection.positions.parameters())
    tokens = torch.randn(1, 20, 64)
    assert torch.equal(framework.projection(tokens), framework.projection.projector(tokens))
    with pytest.raises(ConfigError, match="max_motion_tokens"):
        framework.projection(torch.randn(1, 16 + 33, 64))


@torch.no_grad()
def test_the_conditioning_holds_every_visual_token(framework):
    """Another last token changes the last row and no other: rows are those whose input is the token."""
    batch = make_batch(framework, 1)
    features = framework.tokeniser.features(batch.frames, batch.frame_counts)
    visual = framework.projection(framework.tokeniser.encode(features))
    plan = plan_rows(batch.texts, features.token_counts, framework.text.crop_start, understanding=False)

    def rows(visual):
        hidden = framework.mllm(assemble(plan, framework.mllm.embed(plan.token_ids), visual), plan.row_lengths)
        (row,) = framework.generation_rows(hidden.conditioning, plan, [0])
        assert len(row.visual) == features.token_counts[0]
        return torch.cat(row)

    changed = visual.clone()
    changed[:, -1] += 1
    differs = (rows(visual) != rows(changed)).any(-1)
    assert differs.tolist() == [False] * (len(differs) - 1) + [True]
    assert len(differs) == len(batch.texts[0].prompt) - framework.text.crop_start + features.token_counts[0]


def test_sampling_with_a_cache_equals_recomputation(framework, monkeypatch):
    """Feed the cached run's own tokens back through one uncached pass."""
    framework.eval()
    drawn, draw = [], visual_sampling.token_of
    monkeypatch.setattr(visual_sampling, "token_of", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    prompt = "A small red circle"
    cached = imagined(framework, prompt, 16 + 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        visual = framework.projection(torch.stack(drawn, dim=1))
        ids = torch.tensor([framework.text.prompt(prompt)])
        whole = framework.mllm(torch.cat([framework.mllm.embed(ids), visual], 1))
    torch.testing.assert_close(cached.rows, whole.conditioning[:, framework.text.crop_start :], atol=1e-5, rtol=1e-5)
    assert len(drawn) == 16 + 3 and cached.mask.all()


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_videos_made_together_are_those_made_alone(framework, guidance):
    """Prompts of different lengths, each with its own seed; a level of 255 is rounding's."""
    framework.eval()
    framework.config.decoder.true_guidance = framework.decoder.config.true_guidance = guidance
    prompts = ["A red circle", "Blue.", "A large green square moves up to the left"]

    def seeded():
        return [torch.Generator().manual_seed(seed) for seed in (3, 4, 5)]

    together = generate_batch(framework, prompts, 1.0, 8, steps=2, generators=seeded())
    alone = [generate(framework, prompt, 1.0, 8, 2, generator=own) for prompt, own in zip(prompts, seeded())]
    assert (together.float() - torch.stack(alone).float()).abs().max() <= 1
    assert (together[0].float() - together[1].float()).abs().max() > 8

    features = [framework.tokeniser.features(make_batch(framework, 1, [""], [9]).frames) for _ in prompts]
    together = generate_batch(framework, prompts, 1.0, 8, 2, generators=seeded(), features=features)
    alone = generate(framework, prompts[2], 1.0, 8, 2, generator=seeded()[2], features=features[2])
    assert (together[2].float() - alone.float()).abs().max() <= 1


def test_generate_gives_exactly_the_frames_asked_for_and_repeats_with_its_seed(framework):
    framework.eval()

    def make(seed, seconds=1.25, fps=8):
        return generate(framework, "A red circle", seconds, fps, steps=2, generator=torch.Generator().manual_seed(seed))

    video = make(0)
    assert video.shape == (10, 3, 32, 32) and video.dtype == torch.uint8
    assert torch.equal(video, make(0)) and not torch.equal(video, make(1))
    assert make(0, seconds=0.125).shape[0] == 1


@pytest.mark.parametrize("fps, shown", [(4, [0, 2, 4, 6, 8]), (16, [n // 2 for n in range(20)]), (12, None)])
def test_another_rate_shows_the_same_video(framework, fps, shown):
    """The decoder makes 1.25 s at its own 8 frames per second, whatever the rate of the result."""
    own, other = (
        generate(framework.eval(), "A red circle", 1.25, rate, steps=2, generator=torch.Generator().manual_seed(0))
        for rate in (None, fps)
    )
    shown = shown or [int(n * 8 / 12 + 1e-6) for n in range(15)]
    assert len(own) == 10 and torch.equal(other, own[shown])


def test_understand_answers_in_text(framework):
    framework.eval()
    frames = make_batch(framework).frames[0]
    answer = understand(framework, frames, "What is it?", max_new_tokens=5)
    assert isinstance(answer, str) and answer == understand(framework, frames, "What is it?", max_new_tokens=5)


def test_understand_takes_stored_features(framework):
    frames = make_batch(framework).frames[0]
    features = framework.tokeniser.features(frames[None], [len(frames)])
    stored = features._replace(spatial=features.spatial.double(), motion=features.motion.double())
    assert understand(framework, stored, "What?", 5) == understand(framework, frames, "What?", 5)


@torch.no_grad()
def test_a_long_video_has_several_key_frames_and_one_token_a_later_step(framework):
    """At 4 frames and tokens per second: parts of 2 s are 8 frames, the last has 3; each stands as if alone."""
    framework.eval()
    frames = torch.randint(0, 256, (19, 3, 64, 64), dtype=torch.uint8)
    embeddings = video_embeddings(framework, frames, key_frame_every=2.0, key_frame_idx=4)
    assert embeddings.shape[1] == 3 * 16 + (7 + 7 + 2)
    alone = [video_embeddings(framework, part, key_frame_idx=min(4, len(part) - 1)) for part in frames.split(8)]
    torch.testing.assert_close(embeddings, torch.cat(alone, dim=1))
    assert video_embeddings(framework, frames).shape[1] == 16 + 18
    assert isinstance(understand(framework, frames, "What?", 3, key_frame_every=2.0), str)
    with pytest.raises(ConfigError, match="key_frame_idx 30"):
        understand(framework, frames, "What?", 3, key_frame_idx=30)


@pytest.mark.parametrize("kind", ["gmm", "mse", "flow", "codes"])
def test_every_head_trains_and_draws_what_belongs_to_the_clip(tiny_models, kind):
    """The loss falls on one batch; halves average to the whole; every trainable parameter has a gradient."""
    torch.manual_seed(0)
    heads = VisualHeadConfig(kind=kind, width=64, depth=1)
    framework = build_framework(model_config(tiny_models, visual_head=heads, loss=LossConfig(dec=0))).train()
    batch = make_batch(framework)
    first = framework(batch)
    halves = [framework(part(batch, clips)) for clips in ([0, 1], [2, 3])]
    mean = (halves[0]["loss_vis_lm"] + halves[1]["loss_vis_lm"]) / 2
    torch.testing.assert_close(mean, first["loss_vis_lm"], atol=1e-5, rtol=1e-5)

    optimiser = torch.optim.AdamW([p for p in framework.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(12):
        optimiser.zero_grad()
        loss = framework(batch)["loss_vis_lm"]
        loss.backward()
        optimiser.step()
    assert all(p.grad is not None for p in framework.visual_head.parameters())
    assert loss < first["loss_vis_lm"] - 0.1


def test_precomputed_features_and_latents_give_the_same_losses(framework):
    calibrated(framework)
    batch = make_batch(framework)
    features = framework.tokeniser.features(batch.frames, batch.frame_counts)
    ready = batch._replace(frames=features, video=framework.decoder.encode(batch.video)).to("cpu")
    expected, got = framework(batch), framework(ready)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_parts_that_do_not_fit_are_named(tiny_models, tmp_path):
    import json
    import shutil

    shutil.copytree(tiny_models, tmp_path / "m")
    path = tmp_path / "m" / "hunyuan" / "transformer"
    from diffusers import HunyuanVideoTransformer3DModel

    config = json.loads((path / "config.json").read_text()) | {"text_embed_dim": 64}
    HunyuanVideoTransformer3DModel.from_config(config).save_pretrained(path)
    with pytest.raises(ConfigError, match="hidden size 128.*rows of 64"):
        build_framework(model_config(tmp_path / "m"))


def test_a_step_without_the_decoder_does_not_run_it_and_trains_as_without_l_dec(tiny_models):
    """``dec_every``: neither transformer nor autoencoder nor text encoder runs; every parameter gets its gradient."""
    torch.manual_seed(0)
    framework = build_framework(model_config(tiny_models)).train()
    batch = make_batch(framework)
    ran = []
    for name in ("transformer", "vae.encoder", "text_encoder"):
        framework.decoder.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    without = framework(batch, with_decoder=False)
    without["loss"].backward()
    assert not ran and without["loss_dec"] == 0
    gradients = {name: p.grad for name, p in framework.named_parameters() if p.requires_grad}
    framework.zero_grad()

    both = framework(batch)
    assert set(ran) == {"transformer", "vae.encoder", "text_encoder"} and both["loss_dec"] > 0
    assert all(both[name] == without[name] for name in ("loss_under", "loss_vis_lm"))
    (both["loss"] - both["loss_dec"]).backward()
    for name, parameter in framework.named_parameters():
        if parameter.requires_grad:
            assert gradients[name] is not None, name
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_l_dec_comes_with_the_first_step_and_every_n_th_after_it():
    assert [LossConfig(dec_every=3).with_decoder(step) for step in range(1, 8)] == [True, False, False] * 2 + [True]
    assert all(LossConfig().with_decoder(step) for step in range(1, 5))
    with pytest.raises(ConfigError, match="the steps between would have no loss"):
        LossConfig(under=0, vis_lm=0, dec_every=2)
