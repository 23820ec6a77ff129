"""``evaluate.py compare``: paired differences, agreement, and tables in Markdown, LaTeX and as a picture."""

import json

import numpy as np
import pytest
from PIL import Image

from pipelines import evaluate
from pipelines.evaluation.comparison.command import different_names
from pipelines.evaluation.comparison.writing import escaped
from pipelines.evaluation.paired import kappa, paired
from pipelines.evaluation.results import item_result, lines_of, write_results
from pipelines.evaluation.vbench.totals import DIMENSIONS, totals


def test_mcnemars_exact_test_and_the_bootstrap():
    first = [True] * 50 + [False] * 50
    second = [True] * 45 + [False] * 5 + [True] * 20 + [False] * 30
    pair = paired(first, second)
    assert (pair.gained, pair.lost) == (20, 5) and pair.difference == pytest.approx(0.15)
    assert pair.p_value == pytest.approx(0.00408, abs=1e-5)  # 2 · P(X ≤ 5), X ~ B(25, ½)
    spread = 1.96 * np.sqrt((0.25 - 0.15**2) / 100)  # of the mean of 20 ones, 5 minus ones and 75 zeros
    assert pair.interval.low == pytest.approx(0.15 - spread, abs=0.011)
    assert pair.interval.high == pytest.approx(0.15 + spread, abs=0.011)
    assert paired(first, second) == pair


def test_equal_answers_do_not_differ():
    pair = paired([True, False], [True, False])
    assert (pair.difference, pair.p_value, pair.interval.low, pair.interval.high) == (0, 1, 0, 0)
    for wrong in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError):
            paired(*wrong)
        with pytest.raises(ValueError):
            kappa(*wrong)


def test_kappa_is_cohens():
    """The example is Cohen's usual one: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert kappa(first, second) == pytest.approx(0.4)
    assert kappa(["a", None], ["a", None]) == 1 and kappa(["a", "a"], ["a", "a"]) == 1
    assert kappa(["a", "b"], ["b", "a"]) == -1


def written(folder, right, answer="A", count=40):
    """An evaluation with ``right`` right answers of two categories."""
    items = [
        item_result(f"{n}", f"kind_{n % 2}", "x.mp4", "", "Which?", ["one", "two"], answer,
                    {"letter": answer if n < right else None, "blind letter": "B"})
        for n in range(count)
    ]  # fmt: skip
    write_results(folder, {}, {"letter": lines_of(items, "letter", "blind letter")}, items)
    return folder


@pytest.fixture
def results(tmp_path):
    for name, right in (("a", 20), ("b_1", 34), ("c", 20)):
        (tmp_path / name).mkdir()
        written(tmp_path / name, right)
    return tmp_path


def test_the_table_in_three_forms(results, capsys):
    folders = [str(results / name) for name in ("a", "b_1", "c")]
    evaluate.main(["compare", *folders, "--output", str(results / "tables")])
    out = capsys.readouterr().out
    head, _, first, second, third = out.splitlines()[1:6]
    assert head.startswith("|  | kind_0 | kind_1 | all | 95 % interval | difference")
    assert first.startswith("| a | 50.0 | 50.0 | 50.0 | 35.2 to 64.8 |  |  |  |  |")
    assert (
        second.startswith("| b_1 | **85.0** | **85.0** | **85.0** |")
        and "| +35.0 | +20.0 to +50.0 | 0.00012 |" in second
    )
    assert "| +0.0 | +0.0 to +0.0 | 1 | 1.00 |" in third
    assert (results / "tables" / "letter.md").read_text() in out
    latex = (results / "tables" / "letter.tex").read_text()
    assert r"b\_1 & \textbf{85.0} & \textbf{85.0}" in latex and r"95 \% interval" in latex and r"\toprule" in latex
    picture = np.asarray(Image.open(results / "tables" / "letter.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        evaluate.main(["compare", *map(str, arguments)])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    return error


def test_what_cannot_be_compared_is_refused_in_one_line(results, capsys):
    a, b = results / "a", results / "b_1"
    assert "holds no finished evaluation" in refused([a, results], capsys)
    assert "needs 2 different names" in refused([a, b, "--names", "x", "x"], capsys)
    written(b, 3, answer="B")
    assert "b_1 is about other items than a" in refused([a, b], capsys)
    report = json.loads((b / "report.json").read_text())
    (b / "report.json").write_text(json.dumps(report | {"tables": {"judge": []}}))
    assert "no kind of answer in common" in refused([a, b], capsys)
    (b / "report.json").write_text('{"lines": []}')
    assert "of an older version" in refused([a, b], capsys)


def with_vbench(folder, prompts="abc", **scores):
    """An evaluation with VBench of these dimensions."""
    folder.mkdir()
    report = {"settings": {"prompts": prompts}, "scores": scores, "videos": {name: 5 for name in scores}}
    (folder / "report.json").write_text(json.dumps(report | {"totals": totals(scores)}))
    return folder


def test_vbench_reports_are_compared_by_dimension_and_total(results, capsys):
    whole = {name: 0.5 for name in DIMENSIONS}
    a, b = with_vbench(results / "v", **whole), with_vbench(results / "w", **whole | {"human_action": 0.8})
    evaluate.main(["compare", str(a), str(b), "--output", str(results / "tables")])
    head, _, first, second = (results / "tables/vbench.md").read_text().splitlines()
    columns = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (head, first, second)]
    by_name = {name: cells for name, *cells in zip(*columns)}
    assert by_name["human_action"] == ["50.00", "**80.00**"] and by_name["scene"] == ["**50.00**"] * 2
    gain = 0.3 / 9 / 5  # of nine semantic dimensions; semantic is a fifth of the total
    assert by_name["difference"] == ["", f"{100 * gain:+.2f}"] and list(by_name)[-4:-1] == [
        "quality",
        "semantic",
        "total",
    ]
    assert "human\\_action" in (results / "tables/vbench.tex").read_text() and "vbench" in capsys.readouterr().out
    assert "is no evaluation with VBench, as others" in refused([a, results / "a"], capsys)
    assert "has other prompts" in refused([a, with_vbench(results / "x", "other", scene=0.1)], capsys)


def test_names_and_special_characters(tmp_path):
    assert different_names([tmp_path / "x" / "out", tmp_path / "y" / "out"]) == ["x/out", "y/out"]
    assert escaped("50 % of a_b & {c}\\~") == r"50 \% of a\_b \& \{c\}\textbackslash{}\textasciitilde{}"
