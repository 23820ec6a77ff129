"""Options of sampling visual tokens: top components, guidance by text, candidates; and text dropout in training."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from data_tools.draws import Draws
from pipelines import generate
from pipelines.config import CaptionShares, MixtureConfig
from pipelines.engine.loading.encoding import SampleToModel
from support.commands import called
from support.launch import assert_user_error
from support.tiny import model_config
from vtok import visual_sampling
from vtok.assembly.build import build_framework
from vtok.config import ConfigError, VisualHeadConfig
from vtok.sampling import PLAIN, Sampling
from vtok.visual_head import build_visual_head
from vtok.visual_sampling import sample_candidates, sample_features, sample_row, sample_rows

KINDS = ("gmm", "mse", "flow", "codes")
PROMPT = "A red circle"


def head_of(kind, dim=2, **changes):
    torch.manual_seed(0)
    settings = VisualHeadConfig(kind=kind, **dict(components=3, width=16, depth=2, levels=8) | changes)
    return build_visual_head(settings, hidden_dim=8, dim=dim)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def framework_of(models, kind="gmm", tokens="vtok"):
    config = model_config(models, visual_head=VisualHeadConfig(kind=kind, width=16, depth=1))
    torch.manual_seed(0)
    return build_framework(config).eval()


# ---------------------------------------------------------------- heads


def test_only_the_likeliest_components_are_drawn():
    head, hidden = head_of("gmm", components=4, min_scale=1e-6), torch.randn(1, 8).expand(4000, -1)
    weights, means, _ = (x[0] for x in head.parameters_of(hidden[:1]))
    cold = {k: head.sample(hidden, Sampling(1e-6, top_components=k), seeded()) for k in (None, 1, 2, 9)}
    order = weights.argsort(descending=True)
    for k, drawn in cold.items():
        nearest = torch.cdist(drawn, means).argmin(-1)
        assert set(nearest.tolist()) == set(order[: k or 4].tolist())
    share = (torch.cdist(cold[2], means).argmin(-1) == order[0]).float().mean().item()
    assert share == pytest.approx((weights.exp()[order[0]] / weights.exp()[order[:2]].sum()).item(), abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_of_1_or_by_the_same_states_changes_nothing(kind):
    head, hidden, other = head_of(kind), torch.randn(5, 8), torch.randn(5, 8)
    plain = head.sample(hidden, PLAIN, seeded())
    torch.testing.assert_close(head.sample(hidden, Sampling(guidance=1.0), seeded(), other), plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(head.sample(hidden, Sampling(guidance=3.0), seeded(), hidden), plain, atol=1e-5, rtol=0)
    assert (head.sample(hidden, Sampling(guidance=3.0), seeded(), other) - plain).abs().max() > 1e-3
    without = head.sample(hidden, Sampling(guidance=0.0, temperature=0), seeded(), other)
    torch.testing.assert_close(without, head.sample(other, Sampling(0), seeded()), atol=1e-5, rtol=0)


def test_a_guided_gaussian_is_the_power_of_the_two():
    """p^s q^(1 - s), normalised, for one component, whose deviation here does not depend on the state."""
    head = head_of("gmm", dim=1, components=1)
    with torch.no_grad():
        head.linear.weight[2] = 0
    given, without, scale = torch.randn(1, 8), torch.randn(1, 8), 2.5
    x = torch.linspace(-40, 40, 200001)[:, None]
    log_p, log_q = (-head.loss(state.expand(len(x), -1), x) for state in (given, without))
    density = (scale * log_p + (1 - scale) * log_q).softmax(0)
    mean = (density * x[:, 0]).sum()
    deviation = (density * (x[:, 0] - mean).square()).sum().sqrt()
    drawn = head.sample(given.expand(40000, -1), Sampling(guidance=scale), seeded(), without.expand(40000, -1))
    assert drawn.mean().item() == pytest.approx(mean.item(), abs=0.03)
    assert drawn.std().item() == pytest.approx(deviation.item(), rel=0.02)


# ---------------------------------------------------------------- rows


def test_the_likeliest_candidate_is_taken(tiny_models):
    """-log p of its tokens, given the prompt, is computed again from one uncached pass."""
    framework, count = framework_of(tiny_models), 19
    draws = seeded(4)
    candidates = [sample_candidates(framework, [PROMPT], count, Sampling(candidates=3), draws)[0] for _ in range(3)]
    costs = [cost for _, cost in candidates]
    row = sample_row(framework, PROMPT, count, Sampling(candidates=3), seeded(4))
    best, worst = costs.index(min(costs)), costs.index(max(costs))
    assert torch.equal(row.visual, candidates[best][0].visual)
    assert not torch.equal(row.visual, candidates[worst][0].visual)
    assert len(set(costs)) == 3


def test_the_cost_of_a_candidate_is_its_surprise(tiny_models, monkeypatch):
    framework, count, drawn = framework_of(tiny_models), 18, []
    own = visual_sampling.token_of
    monkeypatch.setattr(visual_sampling, "token_of", lambda *given: drawn.append(given[1:3]) or own(*given))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Converting a tensor with requires_grad=True")
        [(_, cost)] = sample_candidates(framework, [PROMPT], count, Sampling(candidates=2), seeded())
    tokens = torch.stack([own(framework, kind, value, torch.float32) for kind, value in drawn], 1)
    with torch.no_grad():
        ids = torch.tensor([framework.text.prompt(PROMPT)])
        states = framework.mllm(torch.cat([framework.mllm.embed(ids), framework.projection(tokens)], 1)).last[0]
        expected = 0.0
        for index, (kind, value) in enumerate(drawn):
            head, state = framework.visual_head[kind], states[ids.shape[1] - 1 + index : ids.shape[1] + index]
            expected += head.dim * head.loss(state, value).item()
    assert cost == pytest.approx(expected, rel=1e-4)


def test_guided_tokens_differ_and_none_without_text_are_the_prompt_s(tiny_models):
    framework = framework_of(tiny_models)
    rows = [
        sample_row(framework, prompt, 6, Sampling(guidance=scale), seeded()).visual
        for prompt, scale in ((PROMPT, 1.0), (PROMPT, 4.0), ("", 1.0), ("", 4.0))
    ]
    assert (rows[0] - rows[1]).abs().max() > 1e-3
    torch.testing.assert_close(rows[2], rows[3], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_videos_that_are_sampled_together_are_those_of_each_alone(tiny_models, scale):
    framework, prompts = framework_of(tiny_models, "mse"), (PROMPT, "A red square")
    assert len({len(framework.text.prompt(prompt)) for prompt in prompts}) == 1
    together, *alone = (
        sample_features(framework, some, 19, Sampling(temperature=0, guidance=scale))
        for some in (prompts, *((prompt,) for prompt in prompts))
    )
    assert together.motion_counts == [3, 3] and together.spatial.shape[:2] == (2, 16)
    for kind in ("spatial", "motion"):
        values = getattr(together, kind)
        torch.testing.assert_close(values, torch.cat([getattr(one, kind) for one in alone]), atol=1e-4, rtol=1e-4)
        assert (values[0] - values[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "kind, sampling",
    [("gmm", Sampling(candidates=2)), ("gmm", Sampling(guidance=2.0)), ("flow", PLAIN), ("codes", PLAIN)],
)
def test_a_video_does_not_depend_on_the_prompts_beside_it(tiny_models, kind, sampling):
    """Prompts of unlike lengths; the second video of a prompt is another one."""
    framework, prompts = framework_of(tiny_models, kind), (PROMPT, "A red square", "Two small blue circles go up")
    assert len({len(framework.text.prompt(prompt)) for prompt in prompts}) == 2
    rows = sample_rows(framework, prompts, 18, sampling, [seeded(number) for number in range(6)], videos=2)
    for place, prompt in enumerate(prompts):
        alone = [sample_row(framework, prompt, 18, sampling, seeded(2 * place + number)) for number in range(2)]
        for one, other in zip(rows[place], alone, strict=True):
            torch.testing.assert_close(torch.cat(one), torch.cat(other), atol=1e-4, rtol=1e-4)
        assert (alone[0].visual - alone[1].visual).abs().max() > 1e-3


def test_heads_without_a_density_or_a_mixture_refuse(tiny_models):
    framework = framework_of(tiny_models, "flow")
    with pytest.raises(ConfigError, match="flow has no density .* leave candidates at 1"):
        sample_row(framework, PROMPT, 4, Sampling(candidates=2))
    with pytest.raises(ConfigError, match="top_components is a setting of the visual head gmm, not of flow"):
        sample_row(framework, PROMPT, 4, Sampling(top_components=2))
    assert sample_row(framework, PROMPT, 4, Sampling(guidance=2.0)).visual.shape[0] == 4


@pytest.mark.parametrize(
    "option, value, message",
    [
        ("--top_components", "0", "top_components must be at least 1, not 0"),
        ("--visual_guidance", "-1", "guidance must be finite and not negative, not -1"),
        ("--candidates", "0", "candidates must be at least 1, not 0"),
        ("--best_of", "0", "best_of must be at least 1, not 0"),
    ],
)
def test_impossible_options_are_one_line(tmp_path, option, value, message):
    told = ("--checkpoint", tmp_path, "--prompt", "x", "--output", tmp_path / "x.mp4", option, value)
    assert_user_error(called(generate.main, *told), message)


# ---------------------------------------------------------------- training


def sample_at(position, source=0, **changes):
    """A captioned clip, as a dataset gives it."""
    captions = ("A red circle.", "Red.", "A large red circle moves to the right.")
    given = dict(
        caption=captions[0], captions=captions, question=None, answer=None, draws=Draws(0, position), extras={},
        turns=(), kind="video", places=(), source=source,
    )  # fmt: skip
    return SimpleNamespace(**given | changes)


def test_a_dataset_of_a_mixture_has_its_own_captions_prompts_and_losses(tiny_models):
    text = framework_of(tiny_models).text
    decode = text.tokenizer.decode
    shares = CaptionShares(short=1, long=2, empty=1)
    sources = [
        MixtureConfig("a", captions=shares, prompts=["Say it!"]), MixtureConfig("b"),
        MixtureConfig("c", losses=["under"]), MixtureConfig("d", losses=["dec"]),
    ]  # fmt: skip
    encode = SampleToModel(text, 0.5, sources)
    rows = [encode(sample_at(position)).text for position in range(400)]
    empty = [row.prompt == text.prompt("") for row in rows]
    said = [decode(row.answer).removesuffix("<|eot_id|>") for row in rows]
    assert 70 < sum(empty) < 130  # its own share, not data.text_dropout
    assert 70 < said.count("Red.") < 130 and said.count("A red circle.") == sum(empty)
    for row, words, gone in zip(rows, said, empty):
        assert row.prompt == text.prompt("" if gone else words) and "Say it!" in decode(
            [i for i in row.question if i >= 0]
        )
    assert all(row.captioned and row.predicts and row.decodes for row in rows)
    others = [encode(sample_at(position, 1)).text for position in range(100)]
    assert 30 < sum(row.prompt == text.prompt("") for row in others) < 70
    assert {decode(row.answer) for row in others} == {"A red circle.<|eot_id|>"}
    quiet, drawn = (encode(sample_at(0, source)).text for source in (2, 3))
    assert quiet.answer and not quiet.captioned
    assert not drawn.answer and drawn.captioned and (drawn.predicts, drawn.decodes) == (False, True)
    judged = SampleToModel(text, 0.5, sources, training=False)
    assert not any(judged(sample_at(position)).text.prompt == text.prompt("") for position in range(50))


def test_text_is_dropped_from_the_generation_row_by_the_sample_s_own_draw(tiny_models):
    text = framework_of(tiny_models).text

    def encoded(position, dropout):
        return SampleToModel(text, dropout)(sample_at(position)).text

    kept = [encoded(position, 0.0) for position in range(200)]
    half = [encoded(position, 0.5) for position in range(200)]
    dropped = [row.prompt == text.prompt("") for row in half]
    assert 70 < sum(dropped) < 130 and not any(row.prompt == text.prompt("") for row in kept)
    for row, own, gone in zip(half, kept, dropped):
        assert row.answer == own.answer and row.captioned and row.question == own.question
        assert row.decoder_ids == (text.caption_ids("") if gone else own.decoder_ids)
        assert gone or row == own
    assert [row.prompt == text.prompt("") for row in (encoded(p, 0.5) for p in range(200))] == dropped
