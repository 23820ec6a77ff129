"""VTok as a model of lmms-eval: against a stand-in of its interface, and in a real environment where there is one.

``VTOK_LMMS_EVAL=FOLDER pytest -n 0 -m slow tests/run/test_lmms_eval.py`` runs the real thing, in the environment that
``pipelines/evaluation/lmms_eval_model/environment.sh FOLDER`` made.
"""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

from data_tools.draws import Draws
from data_tools.shapes import render, scene_of
from data_tools.video.encode import encode_mp4
from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from pipelines.evaluation.everything import UNTRAINED
from pipelines.evaluation.understanding.asking import BLIND, VIDEO, likeliest, said, sights
from pipelines.evaluation.understanding.question import Question, asked_text
from pipelines.inference.understand import Understanding
from support import lmms_eval_stand_in
from support.lmms_eval_stand_in import Instance
from support.tiny import model_config
from vtok.assembly.build import build_framework

PACKAGE = "pipelines.evaluation.lmms_eval_model"
QUESTIONS = [
    Question("a", "x", Path("0.mp4"), "Which way does it go?", ("Up.", "To the left.", "It stays where it is."), "A"),
    Question("b", "x", Path("0.mp4"), "How many are there?", ("One.", "Two."), "B"),
    Question("c", "x", Path("1.mp4"), "What moves?", ("A circle.", "A square."), "A"),
]


@pytest.fixture
def adapter(monkeypatch):
    """The module of our model, on the stand-in."""
    lmms_eval_stand_in.install(monkeypatch)
    yield importlib.import_module(f"{PACKAGE}.model")
    for ours in ("model", "manifest"):
        sys.modules.pop(f"{PACKAGE}.{ours}", None)


@pytest.fixture
def model(adapter, tiny_models, tmp_path, monkeypatch):
    """Our model, tiny, with a task of three documents about two clips."""
    for number in range(2):
        scene = scene_of("direction", "up", Draws(3, number))
        (tmp_path / f"{number}.mp4").write_bytes(encode_mp4(render(scene, 16, 64), 8, 18))
    config = parse_run_arguments(["--config", str(PRESETS / "tiny.yaml")]).config
    config.model = model_config(tiny_models)
    torch.manual_seed(0)
    run = config, build_framework(config.model).eval(), 5
    monkeypatch.setattr(adapter, "load_run", lambda folder, ema: run)
    model = adapter.VTok(checkpoint="run")
    model.task_dict = {"task": {"test": [{"video": str(tmp_path / q.video)} for q in QUESTIONS] + [{"video": None}]}}
    return model


def shown(document):
    return [document["video"]] if document["video"] else []


def generate(text, doc_id, **settings):
    return Instance("generate_until", (text, settings, shown, doc_id, "task", "test"))


def choose(text, option, doc_id):
    return Instance("loglikelihood", (text, f" {option}", shown, doc_id, "task", "test"))


def own_answers(model, question, name=VIDEO):
    """What our own scorer finds."""
    config, framework = model.asker.understanding.config, model.asker.framework
    folder = Path(model.task_dict["task"]["test"][0]["video"]).parent
    frames, every = Understanding(config, framework).seen(folder / question.video)
    return said(framework, sights(framework, frames, every)[name], question, [], True)


def test_replies_are_those_of_our_own_scorer(model):
    asked = [asked_text(question, [], True) for question in QUESTIONS]
    requests = [generate(text, k, max_new_tokens=16, do_sample=False) for k, text in enumerate(asked)]
    replies = model.generate_until(requests)
    assert replies == [own_answers(model, question)["reply"] for question in QUESTIONS]
    blind = model.generate_until([generate(asked[0], 3, max_new_tokens=16)])
    assert blind == [own_answers(model, QUESTIONS[0], BLIND)["reply"]]
    end = replies[0][len(replies[0]) // 2]
    cut = model.generate_until([generate(asked[0], 0, max_new_tokens=16, until=end)])
    assert cut == [replies[0].split(end)[0]] != replies[:1]


def test_losses_are_those_of_our_own_scorer(model):
    """lmms-eval takes the option with the smallest: the likeliest per token, as ours."""
    requests = [choose(asked_text(q, [], True), option, k) for k, q in enumerate(QUESTIONS) for option in q.options]
    found = (each.text for each in model.loglikelihood(requests))
    for question in QUESTIONS:
        own, here = own_answers(model, question), [next(found) for _ in question.options]
        assert [loss for loss, _ in here] == pytest.approx([n / t for n, t in zip(own["nats"], own["tokens"])], 1e-5)
        losses = [loss for loss, _ in here]
        assert "ABC"[losses.index(min(losses))] == likeliest(own)


def test_a_continuation_is_greedy_if_the_model_would_write_it(model, monkeypatch):
    monkeypatch.setattr(model.asker, "reply", lambda video, question, tokens: "Up.")
    found = model.loglikelihood([choose("Which?", option, 0) for option in ("Up.", "Up", "Down.")])
    assert [each.text[1] for each in found] == [True, False, False]


def test_a_video_is_embedded_once_for_questions_in_a_row(model, monkeypatch):
    seen = []
    whole = model.asker.seen
    monkeypatch.setattr(model.asker, "seen", lambda video: seen.append(video.name) or whole(video))
    requests = [generate("Which?", k, max_new_tokens=2) for k in (0, 1, 2, 2, 0)]
    model.generate_until(requests)
    assert seen == ["0.mp4", "1.mp4", "0.mp4"]


@pytest.mark.parametrize("strategy, more", [("vtok", {}), ("frames", {"sampled_frames": 4}), ("training_free", {})])
def test_published_weights_alone(adapter, model, tmp_path, strategy, more):
    """A configuration's settings are changed by ``--model_args``: one YAML serves the three strategies."""
    (tmp_path / "x.yaml").write_text(UNTRAINED.format(strategy="vtok", more=""))
    settings = {f"model.tokeniser.{key}": value for key, value in {"strategy": strategy, **more}.items()}
    untrained = adapter.VTok(config=str(tmp_path / "x.yaml"), **settings)
    assert untrained.asker.framework.config.tokeniser.strategy == strategy
    untrained.task_dict = model.task_dict
    (reply,) = untrained.generate_until([generate("Which way does it go?", 0, max_new_tokens=4)])
    assert isinstance(reply, str)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "takes checkpoint=… or config=…, one of them"),
        ({"checkpoint": "a", "config": "b"}, "takes checkpoint=… or config=…, one of them"),
        ({"checkpoint": "a", "model.tokeniser.strategy": "frames"}, "model.tokeniser.strategy needs config=…"),
        ({"checkpoint": "no/such/run"}, "no/such/run is not the output of a training run"),
        ({"config": "x.yaml", "ema": True}, "ema needs checkpoint=…"),
        ({"config": "x.yaml", "batch_size": "8"}, "one question after another"),
        ({"config": "x.yaml", "device": "cuda:1"}, "leave out --device"),
    ],
)
def test_wrong_arguments_are_one_line(adapter, arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        adapter.VTok(**arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "method, request_, message",
    [
        ("generate_until", generate("x", 0, do_sample=True), "the task task samples or searches"),
        ("generate_until", Instance("", ("x", {}, lambda _: ["a", "b"], 0, "task", "test")), "shows 2 pictures"),
        ("generate_until", Instance("", ("x", {}, lambda _: ["no.mp4"], 0, "task", "test")), "no such video: no.mp4"),
        ("generate_until_multi_round", generate("x", 0), "leave out tasks of several rounds"),
    ],
)
def test_requests_that_cannot_be_answered_are_one_line(model, method, request_, message, capsys):
    with pytest.raises(SystemExit) as end:
        getattr(model, method)([request_])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1


def test_the_entry_point_leads_to_the_model(adapter):
    project = (PRESETS.parents[1] / "pyproject.toml").read_text()
    module, name = re.search(r'entry-points."lmms_eval.models"]\nvtok = "(.+):(.+)"', project).groups()
    manifest = getattr(importlib.import_module(module), name)
    assert manifest.model_id == "vtok"
    module, name = manifest.simple_class_path.rsplit(".", 1)
    assert getattr(importlib.import_module(module), name) is adapter.VTok
