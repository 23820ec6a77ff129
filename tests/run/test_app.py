"""The page in a real browser: a clip gives tokens, a caption and an answer; a prompt gives a video."""

import shutil
import subprocess
import sys
import time
import urllib.request

import pytest

from data_tools.draws import Draws
from data_tools.shapes import caption_is_right, draw_scene, render_clips
from data_tools.video.decode import validate
from pipelines import app
from pipelines.engine.ports import free_port
from support.commands import called
from support.launch import assert_user_error, environment, python

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 120  # seconds


@pytest.fixture
def address(tmp_path):
    """A running page."""
    pytest.importorskip("gradio")
    port = free_port()
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen([sys.executable, "pipelines/app.py", "--port", str(port)], stdout=log, stderr=log,
                               env=environment() | {"GRADIO_ANALYTICS_ENABLED": "False"})  # fmt: skip
    address, end = f"http://127.0.0.1:{port}", time.time() + PATIENCE
    while not reached(address):
        assert process.poll() is None and time.time() < end, (tmp_path / "log").read_text()
        time.sleep(0.5)
    yield address
    process.terminate()
    process.wait(30)


def reached(address):
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_in_a_browser(address, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    render_clips(tmp_path / "clips", 2, seed=11, split="train")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(address)
        page.locator("#clip input[type=file]").set_input_files(str(tmp_path / "clips/000.mp4"))
        filled(page, "caption")
        caption = page.locator("#caption textarea").input_value()
        assert caption_is_right(caption, draw_scene(Draws(11, 0), "train"))
        assert page.locator("#tokens img").get_attribute("src")
        page.locator("#question textarea").fill("How many shapes are there?")
        page.locator("#question textarea").press("Enter")
        filled(page, "answer")

        page.get_by_role("tab", name="Generate").click()
        page.locator("#prompt textarea").fill("A blue square moves to the right.")
        page.locator("#start").click()
        page.locator("#video video").wait_for()
        made = page.locator("#video video").get_attribute("src")
        (tmp_path / "made.mp4").write_bytes(urllib.request.urlopen(made, timeout=30).read())
        browser.close()
    assert validate(tmp_path / "made.mp4").frames == 9


def filled(page, name):
    """Waits until a text box holds text."""
    page.wait_for_function(f"document.querySelector('#{name} textarea')?.value.trim().length > 0")


def test_a_wrong_port_is_one_line():
    assert_user_error(called(app.main, "--port", "99999"), "--port")


@pytest.mark.long  # its imports
def test_a_model_that_is_none_is_one_line():
    pytest.importorskip("gradio")
    assert_user_error(python("pipelines/app.py", "--model", "no/such-model"), "no/such-model")
