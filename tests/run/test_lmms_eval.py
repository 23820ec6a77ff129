"""VTok as a model of lmms-eval: against a stand-in of its interface, and in a real environment where there is one.

``VTOK_LMMS_EVAL=FOLDER pytest -n 0 -m slow tests/run/test_lmms_eval.py`` runs the real thing, in the environment that
``pipelines/evaluation/lmms_eval_model/environment.sh FOLDER`` made.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_tools.draws import Draws
from data_tools.shapes import render, render_clips, scene_of
from data_tools.video.encode import encode_mp4
from pipelines import evaluate
from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from pipelines.evaluation.everything import UNTRAINED
from pipelines.evaluation.lmms_eval_model.asker import Asker
from pipelines.evaluation.understanding.asking import BLIND, VIDEO, likeliest, said, sights
from pipelines.evaluation.understanding.question import Question, asked_text
from pipelines.inference.load import load_run
from pipelines.inference.understand import Understanding
from support import lmms_eval_stand_in
from support.lmms_eval_stand_in import Instance
from support.suite_files import SUITES
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


# --- the real thing ---

ENVIRONMENT = os.environ.get("VTOK_LMMS_EVAL", "")
real = pytest.mark.skipif(not ENVIRONMENT, reason="VTOK_LMMS_EVAL names no environment with lmms-eval")

# Our own items as tasks: a letter, or the likeliest option.
FUNCTIONS = """
from pipelines.evaluation.options import LETTERS, PROMPT, listed, parse_letter

def visual(doc):
    return [doc["path"]]

def text(doc, lmms_eval_specific_kwargs=None):
    return PROMPT.format(question=doc["question"], options=listed(doc["options"]))

def right(doc):
    return doc["options"].index(doc["answer"])

def score(doc, results):
    return {"accuracy": float(parse_letter(results[0], doc["options"]) == LETTERS[right(doc)])}
"""
OWN = {
    "dataset_path": "json", "test_split": "test", "doc_to_visual": "functions.visual", "doc_to_text": "functions.text",
}  # fmt: skip
LETTERS = OWN | {
    "task": "own_letters", "output_type": "generate_until", "doc_to_target": "answer",
    "generation_kwargs": {"max_new_tokens": 16, "do_sample": False}, "process_results": "functions.score",
    "metric_list": [{"metric": "accuracy", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip
OPTIONS = OWN | {
    "task": "own_options", "output_type": "multiple_choice", "doc_to_choice": "options",
    "doc_to_target": "functions.right",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip

# The suite's own task in lmms-eval, the place of its videos below HF_HOME, its split, and what a row has there and not
# in the owners' files.
PUBLIC = {
    "video_mmmu": ("videommmu/perception.yaml", "video_mmmu/Art/dev_Art_1.mp4", "test", {}),
    "mmvu_val": ("mmvu/mmvu_val.yaml", "mmvu/videos/Art/0.mp4", "validation", {"video_path": "videos/Art/0.mp4"}),
    "mvbench": ("mvbench/mvbench_action_antonym.yaml", "mvbench_video/ssv2_video_mp4/74225.mp4", "train", {}),
    "longvideobench_val_v": (
        "longvideobench/longvideobench_val_v.yaml", "datasets/longvideobench/videos/86CxyhFV9MI.mp4", "validation", {}
    ),
    "lvbench": ("lvbench/lvbench.yaml", "lvbench/Cm73ma6Ibcs.mp4", "train", {}),
    "videomme": ("videomme/videomme.yaml", "videomme/data/fFjv93ACGo8.mp4", "test", {}),
    "videomme_w_subtitle": ("videomme/videomme_w_subtitle.yaml", "videomme/data/fFjv93ACGo8.mp4", "test", {}),
}  # fmt: skip
SRT = '1\n00:00:00,000 --> 00:00:01,500\n<font color="white" size=".72c">A square goes up.</font>\n'


def as_task(settings):
    """A task as YAML. Texts that begin with ``functions.`` name functions."""
    lines = json.dumps(settings)
    return re.sub(r'"(functions\.\w+)"', r"!function \1", lines)


def run_real(tasks, folder, model, *names, ranks=1):
    """Runs lmms-eval on tasks, and returns its results and, by task, what was logged of each document."""
    launcher = ["accelerate.commands.launch", "--cpu", "--num_processes", str(ranks), "-m"] if ranks > 1 else []
    command = [
        f"{ENVIRONMENT}/bin/python", "-m", *launcher, "lmms_eval", "--model", "vtok", "--model_args", model,
        "--log_samples", "--tasks", ",".join(names), "--include_path", str(tasks), "--output_path", str(folder / "out"),
    ]  # fmt: skip
    places = {"HF_HOME": str(folder / "hf"), "HF_DATASETS_OFFLINE": "1"}
    ended = subprocess.run(command, env=os.environ | places, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0 and "Error during evaluation" not in ended.stdout + ended.stderr, ended.stderr[-2000:]
    (results,) = (folder / "out").rglob("*_results.json")
    logged = {}
    for path in (folder / "out").rglob("*_samples_*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        logged[path.stem.split("_samples_")[1]] = sorted(rows, key=lambda row: row["doc_id"])
    return json.loads(results.read_text()), logged


@pytest.fixture
def own_tasks(tmp_path):
    """Six clips with their items, as tasks of lmms-eval."""
    clips, tasks = tmp_path / "clips", tmp_path / "tasks"
    render_clips(clips, 6, 20_260_204, split="train")
    rows = [json.loads(line) for line in (clips / "items.jsonl").read_text().splitlines()]
    rows = [row | {"path": str(clips / f"{row['id']}.mp4")} for row in rows]
    (clips / "tasks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tasks.mkdir()
    (tasks / "functions.py").write_text(FUNCTIONS)
    for task in (LETTERS, OPTIONS):
        files = {"dataset_kwargs": {"data_files": {"test": str(clips / "tasks.jsonl")}}}
        (tasks / f"{task['task']}.yaml").write_text(as_task(task | files))
    return clips, tasks


def require_same_as_ours(clips, folder, model, results, logged):
    """Our own scorer finds the same letters, likelihoods and accuracies on the same items, in this environment."""
    evaluate.main(["understanding", *model, "--items", str(clips / "items.jsonl"), "--videos", str(clips),
                   "--output", str(folder / "ours")])  # fmt: skip
    report = json.loads((folder / "ours" / "report.json").read_text())
    stored = [json.loads(path.read_text()) for path in sorted((folder / "ours" / "answers").glob("*.json"))]
    ours = [one["answers"][item["id"]][VIDEO] for one, item in zip(stored, report["items"])]
    assert [row["filtered_resps"] for row in logged["own_letters"]] == [own["reply"] for own in ours]
    for row, own in zip(logged["own_options"], ours, strict=True):
        losses = [float(loss) for loss, _ in row["filtered_resps"]]
        assert losses == pytest.approx([n / t for n, t in zip(own["nats"], own["tokens"])], abs=1e-4)
    for task, metric, scorer in (("own_letters", "accuracy", "letter"), ("own_options", "acc", "likelihood")):
        line = report["tables"][scorer][-1]
        assert results["results"][task][f"{metric},none"] == pytest.approx(line["right"] / line["asked"])


@real
@pytest.mark.slow
@pytest.mark.parametrize("strategy, more", [("vtok", {}), ("frames", {"sampled_frames": 4}), ("training_free", {})])
def test_real_published_weights_alone(own_tasks, tmp_path, strategy, more):
    clips, tasks = own_tasks
    (tmp_path / "x.yaml").write_text(UNTRAINED.format(strategy="vtok", more=""))
    settings = {"config": tmp_path / "x.yaml", "model.tokeniser.strategy": strategy}
    settings |= {f"model.tokeniser.{key}": value for key, value in more.items()}
    arguments = ",".join(f"{key}={value}" for key, value in settings.items())
    found = run_real(tasks, tmp_path, arguments, "own_letters", "own_options")
    ours = "".join(f"{key}: {value}, " for key, value in more.items())
    (tmp_path / "ours.yaml").write_text(UNTRAINED.format(strategy=strategy, more=ours))
    require_same_as_ours(clips, tmp_path, ["--config", str(tmp_path / "ours.yaml")], *found)


@real
@pytest.mark.slow
def test_real_ranks_share_the_questions(own_tasks, tmp_path):
    clips, tasks = own_tasks
    found = run_real(tasks, tmp_path, "checkpoint=shapes/vtok", "own_letters", "own_options", ranks=2)
    require_same_as_ours(clips, tmp_path, ["--checkpoint", "shapes/vtok"], *found)


@real
@pytest.mark.slow
def test_real_suites_and_an_export(own_tasks, tmp_path):
    """lmms-eval's own tasks, with their prompts and scores, on tiny files of the suites' form."""
    clips, tasks = own_tasks
    (packaged,) = Path(ENVIRONMENT).glob("lib/python3*/site-packages/lmms_eval/tasks")
    for suite, (task, video, split, more) in PUBLIC.items():
        row = SUITES[suite.removesuffix("_w_subtitle")][1][0]
        if suite == "video_mmmu":
            row = row | {"question_type": "multiple-choice"}
        (clips / f"{suite}.jsonl").write_text(json.dumps(row | more) + "\n")
        place = tmp_path / "hf" / video
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips / "000.mp4", place)
        local = {"include": str(packaged / task), "task": f"local_{suite}", "dataset_path": "json",
                 "dataset_kwargs": {"data_files": {split: str(clips / f"{suite}.jsonl")}}}  # fmt: skip
        (tasks / f"local_{suite}.yaml").write_text(json.dumps(local))
    subtitles = tmp_path / "hf" / "videomme" / "subtitle" / "fFjv93ACGo8.srt"
    subtitles.parent.mkdir()
    subtitles.write_text(SRT)

    names = ["own_letters", "own_options", *(f"local_{suite}" for suite in PUBLIC)]
    results, logged = run_real(tasks, tmp_path, "checkpoint=shapes/vtok", *names)
    require_same_as_ours(clips, tmp_path, ["--checkpoint", "shapes/vtok"], results, logged)
    asker = Asker(load_run(Path("shapes/vtok")), 512)
    for suite in PUBLIC:
        (row,) = logged[f"local_{suite}"]
        context, settings = row["input"], results["configs"][f"local_{suite}"]["generation_kwargs"]
        assert SUITES[suite.removesuffix("_w_subtitle")][1][0]["question"] in context
        assert ("A square goes up." in context) == (suite == "videomme_w_subtitle")
        reply = asker.reply(clips / "000.mp4", context, settings["max_new_tokens"], settings.get("until") or [])
        assert row["filtered_resps"] == reply.strip()
        scores = [key for key in results["results"][f"local_{suite}"] if key.endswith(",none") and "stderr" not in key]
        assert scores, f"{suite} has no score"
