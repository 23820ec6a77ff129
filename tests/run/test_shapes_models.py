"""The small models: the smoke profile from end to end, and the parts on which the decoder's obedience rests."""

import csv
import json

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from safetensors import safe_open

from data_tools.draws import Draws
from data_tools.shapes import CATEGORIES, COLOURS, caption_is_right, draw_scene, render_clips, scene_of
from data_tools.shards import RawSample
from pipelines import train_shapes_models
from pipelines.engine.loading.precomputed import FEATURES, unpack_features
from pipelines.shapes_models import clips, describing, joint, joint_run, judged, llava, own_tokens, ranks, scenes
from pipelines.shapes_models.config import PROFILES, DecoderFitting, load_models
from pipelines.shapes_models.curves import curve_of
from pipelines.shapes_models.decoder import NOISIEST, is_matrix, noisy_tokens, shown, stratified, told
from pipelines.shapes_models.facts import CLASSES, LOGITS, all_right, facts_loss, facts_of
from pipelines.shapes_models.muon import orthogonalised
from support.line import line
from support.tiny import model_config
from vtok.assembly.build import build_framework
from vtok.sampling import Sampling
from vtok.visual_sampling import sample_features


@pytest.mark.long
def test_smoke_makes_the_family(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train_shapes_models.main(["--profile", "smoke", "--output", str(tmp_path)])
    for name in ("clip", "llm", "llava", "tower", "decoder"):
        figures = json.loads((tmp_path / name / "done.json").read_text())
        assert figures["last_loss"] < figures["first_loss"], name
    family = tmp_path / "family"
    parts = {path.parent.relative_to(family).as_posix() for path in family.rglob("*.safetensors")}
    inside = {f"hunyuan-video/{part}" for part in ("transformer", "vae", "text_encoder_2")}
    assert parts == {"clip", "llava-next", "vtok", *inside}
    for path in family.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert {str(file.get_slice(name).get_dtype()) for name in file.keys()} == {"BF16"}, path
    card = (family / "hunyuan-video" / "README.md").read_text()
    assert "| category | decoder, detailed captions | decoder, short captions | true clips | reconstructions |" in card
    assert "(7)" in card and "| counting | " in card
    assert str(tmp_path) not in card

    # Started again, nothing is done twice.
    capsys.readouterr()
    train_shapes_models.main(["--profile", "smoke", "--output", str(tmp_path)])
    assert capsys.readouterr().out == f"{family}\n"


def test_facts_are_all_that_captions_tell():
    """Scenes of which labels, colours, shapes or sizes differ have different facts."""
    seen = {}
    for category, about in CATEGORIES.items():
        for label in about.answers:
            for number in range(3):
                scene = scene_of(category, label, Draws(5, number), "train")
                facts = facts_of(scene)
                assert len(facts) == len(CLASSES) and all(0 <= f < len(names) for f, names in zip(facts, CLASSES))
                told = scene.things[: 1 if category == "counting" else None]
                looks = tuple((thing.shape, thing.colour, thing.size, thing.colour_after) for thing in told)
                other = scene.other_label if category == "two_movers" else ""
                assert seen.setdefault(tuple(facts), (category, label, other, looks)) == (
                    category, label, other, looks,
                )  # fmt: skip


def test_facts_are_right_only_if_all_are():
    facts = torch.tensor([facts_of(scene_of("state", "changes", Draws(1, n), "train")) for n in range(2)])
    logits = torch.zeros(2, LOGITS)
    at = 0
    for place, names in enumerate(CLASSES):
        logits[torch.arange(2), at + facts[:, place]] = 20.0
        at += len(names)
    assert all_right(logits, facts).tolist() == [True, True] and facts_loss(logits, facts) < 1e-3
    logits[0, -1] = 40.0  # another size of the third thing
    assert all_right(logits, facts).tolist() == [False, True] and facts_loss(logits, facts) > 5


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 7
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert values.min() > 0.3 and values.max() < 1.4


def test_noise_levels_are_spread_over_the_whole_range():
    levels = stratified(1000, 5.0, torch.Generator().manual_seed(0))
    assert levels.sort().values.equal(levels) and 0 < levels[0] < 0.2 and 0.99 < levels[-1] < 1
    assert levels.median() == pytest.approx(5 / 6, abs=0.01)


def test_a_training_resumes_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "SAVE_SECONDS", -1)
    fitting = DecoderFitting(steps=60, batch_size=16, lr=2e-2, warmup=3, average=0.9, processes=1)
    line(fitting, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        line(fitting, tmp_path / "cut", stop=23)
    assert len(ranks.losses(tmp_path / "cut")) == 23
    line(fitting, tmp_path / "cut")
    losses = ranks.losses(tmp_path / "whole")
    assert ranks.losses(tmp_path / "cut") == losses and len(losses) == 60 and losses[-1] < losses[0] / 2
    whole, cut = (ranks.averaged(tmp_path / name) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)


def test_schedule_is_flat_and_then_falls_to_zero():
    fitting = DecoderFitting(steps=100, warmup=10, cooldown=0.4, batch_size=2)
    rates = [ranks.schedule(step, fitting) for step in range(100)]
    assert rates[0] == 0.1 and rates[9:61] == [1.0] * 52 and rates[80] == pytest.approx(0.5) and rates[99] < 0.03


@pytest.mark.slow  # two processes import torch
def test_processes_that_share_a_batch_reach_the_weights_of_one(tmp_path):
    fitting = DecoderFitting(steps=30, batch_size=16, lr=2e-2, warmup=3, average=0.9)
    (tmp_path / "two").mkdir()
    ranks.on_processes(2, line, fitting, tmp_path / "two")
    line(fitting, tmp_path / "one", parts=2)
    losses = ranks.losses(tmp_path / "two")
    assert len(losses) == 30 and losses == pytest.approx(ranks.losses(tmp_path / "one"), abs=2e-5)
    two, one = (ranks.averaged(tmp_path / name) for name in ("two", "one"))
    assert two.keys() == one.keys()
    for name in two:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)


def test_tokens_of_first_frames_are_noisy_to_different_degrees():
    tokens = torch.randn(400, 4, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 5.0])
    added = noisy_tokens(tokens, seed=1) - tokens
    size = added.std((0, 1)) / tokens.std((0, 1))
    assert torch.allclose(size, torch.full((3,), NOISIEST / 3**0.5), rtol=0.1)
    per_clip = (added / tokens.std((0, 1))).square().mean((1, 2)).sqrt()
    assert per_clip.min() < 0.1 * NOISIEST and per_clip.max() > 0.9 * NOISIEST
    assert torch.equal(noisy_tokens(tokens, seed=1), tokens + added)


def test_states_of_pictures_follow_those_of_their_captions(framework):
    size = next(framework.projection.projector.parameters()).shape[1]
    tokens = torch.randn(2, 4, size)
    captions = ["a red circle", "two blue squares are there"]
    found = shown(framework, framework.projection.projector, captions, tokens)
    other = shown(framework, framework.projection.projector, captions, 10 * tokens.flip(0))
    alone = told(framework, captions)
    for number, caption in enumerate(captions):
        words = int(alone["counts"][number + 1])
        assert found["counts"][number] == words + 4
        own = slice(words, words + 4)
        torch.testing.assert_close(
            found["rows"][number, :words], alone["rows"][number + 1, :words], rtol=1e-2, atol=1e-3
        )
        assert not torch.allclose(other["rows"][number, own], found["rows"][number, own], rtol=0, atol=1e-2)


def test_matrices_are_those_inside_the_blocks():
    model = HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=24, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, patch_size=1, rope_axes_dim=(4, 10, 10), text_embed_dim=16, pooled_projection_dim=8,
    )  # fmt: skip
    matrices = [name for name, parameter in model.named_parameters() if is_matrix(name, parameter)]
    assert matrices and all("block" in name for name in matrices)


@pytest.mark.parametrize("categories, asked", [(tuple(CATEGORIES), 4), (describing.HARD, 2)])
def test_half_of_the_captions_to_train_on_are_detailed(tmp_path, categories, asked):
    render_clips(tmp_path, 8, 5, frames=2, size=16, split=clips.SPLIT, categories=categories)
    joint.rewrite(tmp_path / "captions.csv", 5, categories, asked)
    with (tmp_path / "captions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [" at the " in row["caption"] for row in rows] == [True, False] * 4
    scenes = [draw_scene(Draws(5, number), clips.SPLIT, categories) for number in range(8)]
    assert {scene.category for scene in scenes} <= set(categories)
    assert all(caption_is_right(row["caption"], scene) for row, scene in zip(rows, scenes, strict=True))
    assert [bool(row["question"]) for row in rows] == [n % asked == 1 for n in range(8)]


def test_the_judge_reads_true_clips_as_the_decoder_sees_them():
    """At the decoder's size every answer is right."""
    config = load_models(PROFILES, "cpu")
    asked = judged.new_scenes(1, 4)
    frames = [clips.frames_of(scene, config) for scene, _ in asked]
    assert frames[0].shape == (9, 3, 32, 32) and frames[0].dtype == torch.uint8
    *categories, total = judged.judged([item for _, item in asked], frames)
    assert [line.name for line in categories] == list(dict.fromkeys(item.category for _, item in asked))
    assert (total.right, total.asked) == (28, 28)


def test_pictures_are_shown_as_key_frames_are(tiny_models):
    tokeniser = build_framework(model_config(tiny_models)).tokeniser
    frames = torch.randint(256, (2, 1, 3, 64, 64), dtype=torch.uint8)
    expected = tokeniser.features(frames, [1, 1]).spatial
    found = llava.picture_tokens(tokeniser.feature_extractor, frames[:, 0], 4)
    torch.testing.assert_close(found, expected)


def test_exchanged_colours_make_a_caption_false():
    """Only the colours are exchanged."""
    found = 0
    for position in range(200):
        scene, _ = scenes.scene_at(0, position)
        for frame in range(scenes.FRAMES):
            caption, swapped = scenes.picture_caption(scene, frame), scenes.swapped_caption(scene, frame)
            if swapped is None:
                continue
            found += 1
            assert caption != swapped and sorted(caption.split()) == sorted(swapped.split())
            colourless = [[word for word in text.split() if word not in COLOURS] for text in (caption, swapped)]
            assert colourless[0] == colourless[1]
    assert found > 50


def test_a_curve_has_the_means_of_what_was_measured():
    """250 steps of half a second become 100 points. Every other step has no L_dec; a point without any has None."""
    log = [
        {"samples_per_s": 8.0, "loss_under": float(step), "loss_vis_lm": 1.0, "loss_dec": 2.0 if step % 2 else None}
        for step in range(250)
    ]
    curve = curve_of(log, batch=4)
    assert len(curve) == 100 and curve[-1]["step"] == 250 and curve[-1]["seconds"] == pytest.approx(125)
    assert [point["step"] for point in curve[:3]] == [2, 5, 7]
    assert [point["loss_under"] for point in curve[:2]] == [0.5, 3.0]
    assert {point["loss_dec"] for point in curve} == {2.0}
    assert [point["loss_dec"] for point in curve_of(log[:3], batch=4)] == [None, 2.0, None]


def test_features_that_were_finished_but_not_noted_are_taken(tmp_path, monkeypatch):
    """``precompute.py`` itself refuses a finished folder, so the stage must not call it again."""
    monkeypatch.setattr(joint_run, "run", lambda *_: pytest.fail("precomputed again"))
    (tmp_path / joint_run.SHARDS).mkdir()
    (tmp_path / joint_run.SHARDS / "manifest.json").write_text("{}")
    joint_run.precompute(tmp_path, load_models(PROFILES, "smoke"), None, tmp_path / "clips")


def test_clips_get_tokens_of_their_own_captions(framework):
    """Captions of one length are sampled together; the order of the clips stays, and so does what else they hold."""
    captions = ["A red circle", "A small red circle", "A red square"]
    samples = [RawSample(str(n), b"", "", {"caption": caption}, {"other": b"x"}) for n, caption in enumerate(captions)]
    framework.eval()
    cold = Sampling(temperature=0)
    own = list(own_tokens.with_own(samples, framework, 19, cold, seed=0))
    assert [sample.meta["caption"] for sample in own] == captions
    assert [sample.extras["other"] for sample in own] == [b"x"] * 3
    found = unpack_features([sample.extras[FEATURES] for sample in own])
    assert found.motion_counts == [3] * 3
    for row, caption in enumerate(captions):
        alone = sample_features(framework, [caption], 19, cold)
        torch.testing.assert_close(found.spatial[row], alone.spatial[0], atol=2e-2, rtol=2e-2)  # stored in bf16


def test_training_goes_on_with_own_tokens_in_the_decoder_s_loss_alone(tmp_path):
    config = load_models(PROFILES, "cpu")
    folders = (tmp_path / name for name in ("own", "", "hard", "before"))
    settings = own_tokens.settings(*folders, config)
    every, own, hard = settings["data"]["mixture"]
    assert own["losses"] == ["dec"] and hard["losses"] == ["under"] and "losses" not in every
    assert (own["weight"], hard["weight"]) == (config.joint.own.share, config.joint.own.hard)
    assert sum(part["weight"] for part in settings["data"]["mixture"]) == pytest.approx(1)
    assert settings["init"] == {"weights": str(tmp_path / "before" / "run"), "ema": True}


def test_describing_is_trained_on_clips_of_the_hard_categories_above_all(tmp_path):
    config = load_models(PROFILES, "cpu")
    settings = describing.settings(tmp_path / "hard", tmp_path, config)
    every, hard = settings["data"]["mixture"]
    assert hard["weight"] == config.joint.describing.share == 1 - every["weight"]
    assert settings["model"]["loss"] == {"vis_lm": 0.0, "dec": 0.0, "dec_every": 1}
    assert settings["init"] == {"weights": str(tmp_path / "run"), "ema": True}
