"""``evaluate.py all``: its commands are real ones, and they bring out tables and pages on the shipped models."""

import json

import pytest

from pipelines import evaluate
from pipelines.evaluation import everything


def arguments(tmp_path, *more):
    return ["all", "--checkpoint", "shapes/vtok", "--output", str(tmp_path / "out"), *more]


def test_each_command_is_one_that_evaluate_knows(tmp_path):
    a = evaluate.parse_arguments(arguments(tmp_path))
    given = everything.commands(a)
    parsed = [evaluate.parse_arguments(command) for command in given]
    assert [command[0] for command in given].count("understanding") == 5  # the checkpoint twice, three untrained
    written = {each.output for each in parsed}
    assert len(written) == len(given)
    read = [each.results for each in parsed if each.protocol in ("comparison.command", "page.command")]
    assert {folder for each in read for folder in (each if isinstance(each, list) else [each])} <= written


def test_a_launcher_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as end:
        evaluate.main(arguments(tmp_path))
    assert end.value.code == 2 and "start it without a launcher" in capsys.readouterr().err


@pytest.mark.slow
def test_the_tables_of_the_shipped_models(tmp_path, capsys):
    evaluate.main(arguments(tmp_path, "--per_category", "2", "--steps", "4"))
    out = tmp_path / "out"
    table = (out / "table3" / "likelihood.md").read_text()
    for row in ("table3_open", "table3_untrained_vtok", "table3_untrained_frames", "table3_untrained_training_free"):
        assert f"| {row} |" in table
    judged = json.loads((out / "table1_true_clips" / "report.json").read_text())["tables"]["judge"][-1]
    assert judged["right"] == judged["asked"] == 14  # the judge's ceiling
    for name in ("table1_generated", "table3_open"):
        assert (out / f"{name}.html").stat().st_size > 20_000
    assert (out / "table1" / "judge.png").exists()
