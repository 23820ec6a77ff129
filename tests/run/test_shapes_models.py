"""The small models: the smoke profile from end to end, and the parts on which the decoder's obedience rests."""

import json

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from data_tools.draws import Draws
from data_tools.shapes import CATEGORIES, scene_of
from pipelines import train_shapes_models
from pipelines.shapes_models import clips, judged, ranks, reader
from pipelines.shapes_models.config import DecoderFitting
from pipelines.shapes_models.decoder import is_matrix, stratified
from pipelines.shapes_models.facts import CLASSES, LOGITS, all_right, facts_loss, facts_of
from pipelines.shapes_models.muon import orthogonalised
from pipelines.shapes_models.pruning import keep_components
from pipelines.shapes_models.wider import wider_autoencoder, wider_decoder
from pipelines.shapes_study.config import STUDY, load_study
from support.line import line
from vtok.mllm.base import CONDITIONING_LAYER, MLLM
from vtok.video_decoder.patch_autoencoder import PatchAutoencoder
from vtok.visual_head.gaussian_mixture import GaussianMixtureHead


@pytest.mark.long
def test_smoke_makes_the_family(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train_shapes_models.main(["--profile", "smoke", "--output", str(tmp_path)])
    for name in ("study/clip", "study/llm", "study/llava", "study/dit", "tower", "reader", "decoder"):
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
    assert "| category | decoder, from text alone | true clips | reconstructions |" in card
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


def test_a_wider_autoencoder_keeps_its_axes_and_loses_less():
    draws = torch.Generator().manual_seed(0)
    mixed = torch.randn(768, 768, generator=draws) * torch.linspace(1, 0, 768).square()
    blocks = torch.randn(4000, 768, generator=draws) @ mixed.T
    narrow = PatchAutoencoder(latent_channels=8)
    narrow.fit(blocks[:2000] + 0.1)
    wide = wider_autoencoder(narrow, 24, blocks)
    assert torch.equal(wide.axes[:8], narrow.axes) and torch.equal(wide.scale[:8], narrow.scale)
    assert torch.allclose(wide.axes @ wide.axes.T, torch.eye(24), atol=1e-4)

    def lost(vae):
        centred = blocks - vae.mean
        return (centred - centred @ vae.axes.T @ vae.axes).square().mean()

    best = PatchAutoencoder(latent_channels=24)
    best.fit(blocks)
    assert lost(wide) < 0.95 * lost(narrow) and lost(wide) < 1.02 * lost(best)


def test_a_wider_decoder_reads_and_writes_its_channels_as_before():
    torch.manual_seed(0)
    narrow = HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=24, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, patch_size=1, rope_axes_dim=(4, 10, 10), text_embed_dim=16, pooled_projection_dim=8,
    )  # fmt: skip
    wide = wider_decoder(narrow, 10, seed=0)
    told = dict(
        timestep=torch.tensor([700.0]), encoder_hidden_states=torch.randn(1, 5, 16),
        encoder_attention_mask=torch.ones(1, 5), pooled_projections=torch.randn(1, 8), guidance=torch.tensor([1000.0]),
        return_dict=False,
    )  # fmt: skip
    noisy = torch.randn(1, 4, 2, 2, 2)
    with torch.no_grad():
        before = narrow(hidden_states=noisy, **told)[0]
        after = wide(hidden_states=torch.cat([noisy, torch.zeros(1, 6, 2, 2, 2)], dim=1), **told)[0]
    assert after.shape == (1, 10, 2, 2, 2) and torch.allclose(after[:, :4], before, atol=1e-5)
    matrices = [name for name, parameter in wide.named_parameters() if is_matrix(name, parameter)]
    assert matrices and all("block" in name for name in matrices)


def test_the_judge_reads_true_clips_as_the_decoder_sees_them():
    """At the decoder's size every answer is right."""
    study = load_study(STUDY, "cpu")
    scenes = judged.new_scenes(1, 4)
    frames = [clips.frames_of(scene, study) for scene, _ in scenes]
    assert frames[0].shape == (9, 3, 32, 32) and frames[0].dtype == torch.uint8
    *categories, total = judged.judged([item for _, item in scenes], frames)
    assert [line.name for line in categories] == list(dict.fromkeys(item.category for _, item in scenes))
    assert (total.right, total.asked) == (28, 28)


def test_the_reader_leaves_the_decoders_conditioning_alone():
    llama = LlamaForCausalLM(
        LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2)
    )
    language = MLLM(llama)
    reader.freeze_below_conditioning(language)
    states = llama(torch.arange(6)[None], output_hidden_states=True)
    assert not states.hidden_states[CONDITIONING_LAYER].requires_grad
    assert all(layer.requires_grad for layer in states.hidden_states[CONDITIONING_LAYER + 1 :])


def test_a_smaller_head_keeps_the_chosen_components():
    torch.manual_seed(0)
    head = GaussianMixtureHead(6, 5, components=4, min_scale=0.01)
    hidden = torch.randn(7, 6)
    weight, mean, scale = head.parameters_of(hidden)
    with torch.no_grad():
        keep_components(head, torch.tensor([1, 3]))
    smaller = head.parameters_of(hidden)
    torch.testing.assert_close(smaller[0], weight[:, [1, 3]].log_softmax(-1))
    torch.testing.assert_close(smaller[1:], (mean[:, [1, 3]], scale[:, [1, 3]]))
