"""``evaluate.py page``: one file without requests. A real browser shows it, filters it and keeps a person's answers."""

import json
import re
import shutil

import pytest

from data_tools.draws import Draws
from data_tools.shapes import render, scene_of
from data_tools.video.encode import encode_mp4
from pipelines import evaluate
from pipelines.evaluation.results import item_result, lines_of, write_results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EVIL = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> & 'Æ水'"


@pytest.fixture
def results(tmp_path):
    """An evaluation with two scorers: three items about two videos."""
    folder = tmp_path / "results"
    (folder / "videos").mkdir(parents=True)
    video = encode_mp4(render(scene_of("direction", "right", Draws(0, 0)), 24, 64), 8, 18)
    for name in ("a", "b"):
        (folder / "videos" / f"{name}.mp4").write_bytes(video)
    told = [("a", "counting", "A", "A", "B"), ("a", "counting", "B", "A", None), ("b", EVIL, "B", "B", "B")]
    items = [
        item_result(f"{n}", category, f"videos/{video}.mp4", EVIL, "Which?", ["one", "two"], answer,
                    {"likelihood": likely, "letter": letter, "blind letter": "A"})
        for n, (video, category, answer, likely, letter) in enumerate(told)
    ]  # fmt: skip
    tables = {scorer: lines_of(items, scorer) for scorer in ("likelihood", "letter")}
    write_results(folder, {"checkpoint": EVIL}, tables, items)
    return folder


def written(results, *more):
    path = results.parent / "page.html"
    evaluate.main(["page", str(results), "--output", str(path), *more])
    return path


def test_the_page_needs_nothing_and_holds_each_video_once(results, capsys):
    html = written(results).read_text(encoding="utf-8")
    assert "default-src 'none'" in html and not re.search(r"""(src|href)=["']?https?:""", html)
    assert html.count('class="video"') == 2 and html.count("</script>") == 4 and "<img" not in html
    assert "wrote 3 items" in capsys.readouterr().out
    assert 'class="video"' not in written(results, "--embed_mb", "0").read_text()
    assert "2 larger videos are left out" in capsys.readouterr().out


def test_what_is_missing_is_told_in_one_line(results, capsys):
    (results / "videos" / "b.mp4").unlink()
    for folder, told in ((results, "1 of 2 videos of"), (results.parent, "holds no finished evaluation")):
        with pytest.raises(SystemExit) as end:
            written(folder) if folder == results else evaluate.main(["page", str(folder), "--output", "page.html"])
        assert end.value.code == 2 and told in (error := capsys.readouterr().err) and error.count("\n") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_filters_and_counts(results):
    sync_api = pytest.importorskip("playwright.sync_api")
    path, errors, requests = written(results), [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url.split(":")[0]))
        page.goto(path.as_uri())
        page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.videoWidth === 64)")
        shown = page.locator("article:visible")
        assert page.title() == "results" and shown.count() == 3
        assert page.locator("article").first.locator(".prompt").inner_text() == EVIL
        assert "2 of 3 shown are right; 66.7 % of all" in page.locator("#told").inner_text()
        assert "likelihood: (A) one: right" in shown.first.inner_text()

        page.locator("#outcome").select_option("wrong")
        assert shown.count() == 1 and shown.get_attribute("data-id") == "1"
        page.locator("#scorer").select_option("letter")
        assert shown.get_attribute("data-id") == "0"
        page.locator("#outcome").select_option("abstained")
        assert "letter: no answer: abstained" in shown.inner_text()
        page.locator("#outcome").select_option("")
        page.locator("#category").select_option(EVIL)
        assert shown.count() == 1 and "1 of 1 shown are right" in page.locator("#told").inner_text()
        page.locator("#category").select_option("")

        page.locator("#blind").check()
        assert not shown.first.locator(".verdict").first.is_visible()
        shown.nth(0).get_by_role("button", name="(A) one").click()
        shown.nth(2).get_by_role("button", name="(B) two").click()
        assert shown.first.locator(".verdict").first.is_visible()
        assert page.locator("#agreement").inner_text() == "you agree with letter in 1 of 2"
        page.locator("#scorer").select_option("likelihood")
        assert page.locator("#agreement").inner_text() == "you agree with likelihood in 2 of 2"
        page.reload()
        assert page.locator("#agreement").inner_text() == "you agree with likelihood in 2 of 2"
        assert json.loads(page.locator("#settings").text_content()) == {"checkpoint": EVIL}
        browser.close()
    assert not errors and set(requests) <= {"file", "data"}
