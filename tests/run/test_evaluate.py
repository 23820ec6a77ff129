"""TV-Align: items are parsed strictly, answers get intervals and controls, ranks share the work and resume it."""

import json
from collections import Counter

import pytest
import torch

from data_tools.draws import Draws
from data_tools.errors import DataError
from data_tools.items import Item, read_items, shuffled, write_items
from data_tools.shapes import CATEGORIES, TV_ALIGN, item_of, render, scene_items, scene_of
from data_tools.video.encode import encode_mp4
from pipelines import evaluate
from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from pipelines.evaluation import tv_align
from pipelines.evaluation.accuracy import wilson
from pipelines.evaluation.tv_align import run as generation
from pipelines.evaluation.tv_align.natural.items import natural_items
from pipelines.evaluation.tv_align.natural.proof import prove
from pipelines.evaluation.tv_align.protocol import partners
from pipelines.inference import generate as inference_generate
from pipelines.inference.understand import Understanding
from support.tiny import model_config
from vtok import generation as making
from vtok.assembly.build import build_framework

ITEM = {"id": "a", "category": "counting", "prompt": "Two cats.", "question": "How many?", "options": ["One.", "Two."],
        "answer": "Two."}  # fmt: skip


@pytest.mark.parametrize(
    "right, asked, low, high",
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilsons_interval(right, asked, low, high):
    """The last case is Newcombe's (Statistics in Medicine 17, 1998, table I)."""
    interval = wilson(right, asked)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)


def test_no_interval_without_questions():
    for right, asked in ((0, 0), (3, 2), (-1, 4)):
        with pytest.raises(ValueError):
            wilson(right, asked)


def test_shipped_items_are_whole_and_what_the_command_writes():
    items = read_items(tv_align.FOLDER / "shapes.jsonl")
    assert Counter(item.category for item in items) == dict.fromkeys(TV_ALIGN, 120)
    assert len({item.prompt for item in items}) == len(items) and items == scene_items(120, seed=0)
    for category in TV_ALIGN:
        assert len(set(Counter(item.answer for item in items if item.category == category).values())) == 1
    with pytest.raises(DataError, match="counting has fewer than 121 different prompts"):
        scene_items(121, seed=0)
    natural = read_items(tv_align.FOLDER / "natural.jsonl")
    assert natural == natural_items() and len(natural) == 1064


def test_no_guess_from_the_text_is_better_than_chance(tmp_path, capsys):
    """Question and options alone are right in exactly 25 %, by any rule: each question has each of its answers once."""
    proof = prove(natural_items())
    assert proof.counts == dict.fromkeys(TV_ALIGN, 152) and proof.repeats == 0 and not proof.faults
    assert proof.guesses["best_possible"] == proof.chance == 0.25 and set(proof.places.values()) == {266}
    evaluate.main(["items", "--output", str(tmp_path / "items.jsonl")])
    assert read_items(tmp_path / "items.jsonl") == natural_items()
    assert "best_possible: 25.0 %" in capsys.readouterr().out

    known = [ITEM, ITEM | {"id": "b", "prompt": "Two dogs."}, ITEM | {"id": "c", "category": "colour"}]
    (tmp_path / "known.jsonl").write_text("\n".join(map(json.dumps, known)))
    error = refused(["items", "--check", str(tmp_path / "known.jsonl")], capsys)
    for fault in ("differ in size", "1 prompts are repeated", "'best_possible' is right in 100.0 %, chance is 50.0 %"):
        assert fault in error


@pytest.mark.parametrize(
    "change, message",
    [
        ({"answer": "Three."}, "line 2: the answer 'Three.' is not among the options"),
        ({"options": ["Two.", "Two."]}, "line 2: options should be a list of at least two different texts"),
        ({"options": "Two."}, "line 2: options should be a list"),
        ({"prompt": " "}, "line 2: prompt should be a text"),
        ({"more": 1}, "line 2: expected an object with exactly id, category"),
        ({"id": "b"}, "line 2: the id 'b' is given twice"),
    ],
)
def test_items_are_read_strictly(tmp_path, change, message):
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(json.dumps(item) for item in (ITEM | {"id": "b"}, ITEM | change)))
    with pytest.raises(DataError, match=message):
        read_items(path)


def test_files_without_items_are_refused(tmp_path):
    path = tmp_path / "items.jsonl"
    for content, message in ((None, "cannot read"), ("", "holds no items"), ("{", "line 1: ")):
        if content is not None:
            path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_items(path)


def test_options_are_shuffled_alike_each_time_and_evenly():
    options = ("a", "b", "c", "d")
    items = [Item(str(number), "x", "p", "q", options, "a") for number in range(800)]
    orders = [shuffled(item, 0) for item in items]
    assert orders == [shuffled(item, 0) for item in items] != [shuffled(item, 1) for item in items]
    places = Counter(item.options.index("a") for item in orders)
    assert all(0.25 in wilson(places[place], 800) for place in range(4))


def test_partners_are_other_items_of_the_category():
    items = scene_items(5, seed=0)
    pairs = partners(items, 0)
    assert {other.id for other in pairs.values()} == {item.id for item in items}
    assert all(pairs[item.id].category == item.category and pairs[item.id] != item for item in items)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Items of three categories with their true videos."""
    folder = tmp_path_factory.mktemp("videos")
    items = []
    for category in ("counting", "direction", "relative_size"):
        labels = tuple(CATEGORIES[category].answers)
        for number in range(4):
            scene = scene_of(category, labels[number % len(labels)], Draws(6, number))
            items.append(item_of(scene, Draws(6, number), f"{category}-{number}"))
            (folder / f"{items[-1].id}.mp4").write_bytes(encode_mp4(render(scene, 24, 64), 8, 18))
    write_items(items, folder / "items.jsonl")
    return folder


def command(videos, output, *more):
    return ["tv-align", "--videos", str(videos), "--items", str(videos / "items.jsonl"), "--output", str(output), *more]


def test_true_videos_are_judged_right_by_several_ranks_and_the_controls_are_not(videos, tmp_path, monkeypatch, capsys):
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        evaluate.main(command(videos, tmp_path))
        out = capsys.readouterr().out
        assert ("6 of 12 answers are still to come" in out) == (rank == 1)
    lines = {line["name"]: line for line in json.loads((tmp_path / "report.json").read_text())["tables"]["judge"]}
    assert list(lines) == ["counting", "direction", "relative_size", "all"]
    assert (lines["all"]["right"], lines["all"]["asked"], lines["all"]["abstained"]) == (12, 12, 0)
    assert lines["direction"]["controls"]["frozen"] == 0 and lines["counting"]["controls"]["frozen"] == 1
    assert lines["direction"]["controls"]["chance"] == 0.25 and lines["direction"]["controls"]["majority"] == 0.25
    assert lines["all"]["controls"]["shuffled"] < 0.5
    assert "75.8–100.0" in out


def test_answers_are_kept_and_those_of_another_evaluation_refused(videos, tmp_path, capsys):
    evaluate.main(command(videos, tmp_path))
    table, kept = capsys.readouterr().out, tmp_path / "answers" / "counting-0.json"
    written = kept.stat().st_mtime_ns
    (tmp_path / "answers" / "counting-1.json").unlink()
    evaluate.main(command(videos, tmp_path))
    assert capsys.readouterr().out == table and kept.stat().st_mtime_ns == written
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"settings": {}}))
    assert "holds answers of another evaluation" in refused(command(videos, tmp_path), capsys)


def test_what_cannot_be_judged_is_refused_in_one_line(videos, tmp_path, capsys):
    assert "lacks 1 of 1 videos, the first is a.mp4" in refused(with_items(tmp_path, ITEM, videos), capsys)
    strange = ITEM | {"options": ["Two.", "Many."]}
    assert "is not about the shapes world" in refused(with_items(tmp_path, strange, videos), capsys)
    assert "goes with --checkpoint" in refused(command(videos, tmp_path, "--unconditional", "2"), capsys)
    assert not (tmp_path / "answers").exists()


def with_items(folder, item, videos):
    path = folder / "items.jsonl"
    path.write_text(json.dumps(item))
    return [*command(videos, folder), "--items", str(path)]


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        evaluate.main(arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    return error


def test_a_checkpoints_videos_are_generated_judged_and_resumed(tiny_models, tmp_path, monkeypatch, capsys):
    config = parse_run_arguments(["--config", str(PRESETS / "tiny.yaml")]).config
    config.model = model_config(tiny_models)
    torch.manual_seed(0)
    run, loads = (config, build_framework(config.model).eval(), 7), []
    monkeypatch.setattr(generation, "load_run", lambda folder, ema: loads.append(folder) or run)
    write_items(scene_items(1, seed=0)[:2], tmp_path / "items.jsonl")
    arguments = ["tv-align", "--checkpoint", "run", "--items", str(tmp_path / "items.jsonl"), "--output", str(tmp_path),
                 "--unconditional", "1", "--seconds", "0.5", "--steps", "1", "--batch_size", "2"]  # fmt: skip
    batches, batch = [], inference_generate.generate_batch
    remembered = lambda framework, prompts, *given: batches.append(prompts) or batch(framework, prompts, *given)  # noqa: E731
    monkeypatch.setattr(inference_generate, "generate_batch", remembered)
    evaluate.main(arguments)
    assert list(map(len, batches)) == [2, 1]
    names = {"counting-000", "direction-000", "unconditional-000"}
    assert {path.stem for path in (tmp_path / "videos").iterdir()} == names
    stored = json.loads((tmp_path / "answers" / "unconditional-000.json").read_text())
    assert set(stored["said"]) == {"counting-000", "direction-000"} and stored["step"] == 7 and stored["seed"] > 0
    assert "unconditional" in capsys.readouterr().out
    evaluate.main(arguments)
    assert len(loads) == 1


def test_true_tokens_take_the_place_of_sampled_ones(videos, tiny_models, tmp_path, monkeypatch, capsys):
    """The decoder is conditioned on the features of the item's own true clip."""
    config = parse_run_arguments(["--config", str(PRESETS / "tiny.yaml")]).config
    config.model, config.data.seconds = model_config(tiny_models), 3.0
    torch.manual_seed(0)
    framework = build_framework(config.model).eval()
    monkeypatch.setattr(generation, "load_run", lambda folder, ema: (config, framework, 7))
    shown, row = [], making.teacher_forced_row
    monkeypatch.setattr(making, "teacher_forced_row", lambda *given: shown.append(given[-1]) or row(*given))
    monkeypatch.setattr(making, "sample_row", lambda *_: pytest.fail("tokens were sampled"))
    items = read_items(videos / "items.jsonl")[:2]
    write_items(items, tmp_path / "items.jsonl")
    arguments = ["tv-align", "--checkpoint", "run", "--items", str(tmp_path / "items.jsonl"), "--output", str(tmp_path),
                 "--real_tokens", str(videos), "--seconds", "0.5", "--steps", "1"]  # fmt: skip
    evaluate.main(arguments)
    assert json.loads((tmp_path / "report.json").read_text())["settings"]["real_tokens"] == str(videos)
    for item, features in zip(items, shown, strict=True):
        frames, _ = Understanding(config, framework).seen(videos / f"{item.id}.mp4")
        assert torch.equal(features.motion, framework.tokeniser.features(frames[None]).motion)
    for wrong in (["--unconditional", "2"], ["--real_tokens", str(tmp_path)]):
        assert "--real_tokens" in (error := refused([*arguments, *wrong], capsys)) or "lacks 2 of 2 videos" in error
    assert "goes with --checkpoint" in refused(command(videos, tmp_path, "--real_tokens", str(videos)), capsys)
