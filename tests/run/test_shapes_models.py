"""The family of small models: the smoke profile from end to end, and the parts that the decoder's obedience rests on."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from data_tools.draws import Draws
from data_tools.shapes import CATEGORIES, scene_of
from pipelines.shapes_models import clips, command, judged
from pipelines.shapes_models.config import PROFILES, load_models
from pipelines.shapes_models.facts import CLASSES, LOGITS, all_right, facts_loss, facts_of
from pipelines.shapes_models.muon import MuonAdamW, orthogonalised, take_average
from pipelines.study.config import Fitting
from pipelines.study.fitting import fit


def test_smoke_makes_the_family(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command.main(["--profile", "smoke", "--output", str(tmp_path)])
    for name in ("clip", "tower", "llm", "llava", "decoder"):
        figures = json.loads((tmp_path / name / "done.json").read_text())
        assert figures["last_loss"] < figures["first_loss"], name
    family = tmp_path / "family"
    parts = {path.parent.relative_to(family).as_posix() for path in family.rglob("*.safetensors")}
    assert parts == {"clip", "llava", "hunyuan/transformer", "hunyuan/vae", "hunyuan/text_encoder_2"}
    for path in family.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert {str(file.get_slice(name).get_dtype()) for name in file.keys()} == {"BF16"}, path
    card = (family / "hunyuan" / "README.md").read_text()
    assert "| category | videos | generated from text alone | true clips | autoencoder |" in card
    assert "| all | 7 |" in card and "| counting | 1 |" in card
    assert str(tmp_path) not in card

    # Started again, nothing is done twice.
    capsys.readouterr()
    command.main(["--profile", "smoke", "--output", str(tmp_path)])
    assert capsys.readouterr().out == f"{family}\n"


def test_facts_are_all_that_captions_tell():
    """A scene of each category and label: different labels, colours, shapes and sizes are different facts."""
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


def test_muon_goes_on_where_it_was_stopped_and_its_average_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.study.fitting.SAVE_SECONDS", -1)

    def train(folder, stop=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
        folder.mkdir(exist_ok=True)

        def loss(step):
            if step == stop:
                raise KeyboardInterrupt
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            return (model(x) - x.sum(1, keepdim=True)).square().mean()

        def optimiser_of(parameters):
            matrices = [p for p in parameters.values() if p.ndim == 2]
            return MuonAdamW(matrices, [p for p in parameters.values() if p.ndim == 1])

        return fit(model, loss, Fitting(steps=40, lr=1e-1, warmup=3), folder, optimiser_of), model

    losses, model = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop=23)
    again, resumed = train(tmp_path / "cut")
    assert again == losses and losses[-1] < losses[0] / 4
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters()))
    last = [parameter.clone() for parameter in model.parameters()]
    take_average(model, tmp_path / "whole")
    away = [float((a - b).abs().max()) for a, b in zip(model.parameters(), last)]
    assert all(0 < distance < 1 for distance in away)


def test_clips_are_as_a_view_shows_them_and_the_judge_reads_them():
    """True clips at the decoder's size: every answer is right; no scene of the test is one of the training."""
    config = load_models(PROFILES, "cpu")
    scenes = judged.new_scenes(config.seed, 4)
    frames = [clips.frames_of(scene, config) for scene, _ in scenes]
    assert frames[0].shape == (9, 3, 32, 32) and frames[0].dtype == torch.uint8
    *categories, total = judged.judged([item for _, item in scenes], frames)
    assert [line.name for line in categories] == list(dict.fromkeys(item.category for _, item in scenes))
    assert (total.right, total.asked) == (28, 28)
