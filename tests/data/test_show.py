"""The report: one page with every picture and text in it, inert, that a real browser shows."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from data_tools.cli import main
from data_tools.inspect.show import STRIP_FRAMES, spread
from data_tools.shards import RawSample, ShardReader, write_manifest, write_shard
from data_tools.video.decode import validate
from data_tools.video.encode import encode_mp4

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

EVIL = """<script>document.title='taken'</script><img src="https://example.org/x.png" onerror="x"> & 'Æ水'"""
RED, BLUE = (220, 30, 30), (30, 30, 220)


def fade(frames=16, size=64):
    """From red to blue."""
    share = np.linspace(0, 1, frames)[:, None, None, None]
    return ((1 - share) * np.array(RED) + share * np.array(BLUE)).repeat(size, 1).repeat(size, 2).astype(np.uint8)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    video = encode_mp4(iter(fade()), 8, crf=18)
    facts = validate(video).to_dict()
    texts = [
        {"caption": "A fade.", "question": "To which colour?", "answer": "Blue & <b>bold</b>."},
        {"caption": EVIL, "captions": ["Other wording.", EVIL]},
        {"caption": "Broken."},
    ]
    samples = [
        RawSample(f"{n}", video, ".mp4", {"path": f"<i>{n}", "facts": facts} | text) for n, text in enumerate(texts)
    ]
    samples[2] = RawSample("2", b"no video", ".mp4", samples[2].meta)
    write_shard(folder, 0, samples)
    write_manifest(folder)
    return folder


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.links, self.sources, self.handlers, self.text = [], [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            self.links += [value] if name in ("href", "action", "srcset", "data") else []
            self.sources += [value] if name == "src" else []
            self.handlers += [name] if name.startswith("on") else []

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def report(built, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert main(["show", str(built), "--html", str(path)]) == 0
    return path


def test_the_page_needs_nothing_and_runs_nothing(report):
    html = report.read_text(encoding="utf-8")
    page = Page(html)
    assert not page.links and not page.handlers
    assert not {"script", "link", "iframe", "object", "i"} & set(page.tags)
    assert page.sources and all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "default-src 'none'; img-src data:" in html and "@import" not in html and "url(" not in html
    assert page.tags.count("b") == 3  # one key a card; none from the answer


def test_the_page_shows_texts_facts_and_problems(report):
    text = Page(report.read_text(encoding="utf-8")).text
    for told in ("A fade.", "To which colour?", "Blue & <b>bold</b>.", "Other wording.", EVIL, "64 × 64", "8.00 fps"):
        assert told in text
    for told in ("2.00 s, 16 frames", "h264, yuv420p", "<i>1", "Broken.", "not_a_video: no known video container"):
        assert told in text
    assert "shard-000000 · row 2" in text


def test_the_pictures_go_from_the_first_frame_to_the_last(report):
    images = [
        Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
        for source in Page(report.read_text(encoding="utf-8")).sources
    ]
    assert len(images) == 2 * (1 + STRIP_FRAMES)
    means = [np.asarray(image.convert("RGB"), float).mean((0, 1)) for image in images[: 1 + STRIP_FRAMES]]
    key, *strip = means
    assert np.abs(key - RED).max() < 12 and np.abs(strip[0] - RED).max() < 12 and np.abs(strip[-1] - BLUE).max() < 12
    assert np.all(np.diff([mean[0] for mean in strip]) < -5)  # ever less red


def chromium(path, folder, *options):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", *options, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@needs_chromium
def test_a_browser_shows_the_page_and_keeps_the_captions_inert(report, built, tmp_path):
    dom = chromium(report, tmp_path, "--dump-dom")
    assert f"<title>{built.name}</title>" in dom
    page = Page(dom)
    assert "script" not in page.tags and page.tags.count("article") == 3 and EVIL in page.text
    assert page.tags.count("img") == 2 * (1 + STRIP_FRAMES)


@needs_chromium
@pytest.mark.parametrize("scheme, brightness", [(0, range(60)), (1, range(200, 256))], ids=["dark", "light"])
def test_a_browser_paints_the_pictures(report, tmp_path, scheme, brightness):
    shot = tmp_path / "shot.png"
    settings = f"--blink-settings=preferredColorScheme={scheme}"
    chromium(report, tmp_path, settings, "--window-size=1000,900", f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("RGB"), int)
    assert int(pixels[2, 2].mean()) in brightness
    for colour in (RED, BLUE):  # the key frame and the end of the strip
        assert (np.abs(pixels - colour).max(-1) < 15).sum() > 2000


def test_samples_are_spread_over_the_dataset(built, tmp_path, capsys):
    assert spread(10, 3) == [0, 4, 9] and spread(3, 24) == [0, 1, 2] and spread(5, 1) == [0]
    assert len(spread(5_000_000, 24)) == 24
    path = tmp_path / "few.html"
    assert main(["show", str(built), "--html", str(path), "--samples", "2"]) == 0
    assert capsys.readouterr().out == f"2 samples are shown in {path}\n"
    assert re.findall(r"row (\d)", path.read_text()) == ["0", "2"]


def test_a_damaged_sample_is_shown_as_such(built, tmp_path):
    folder = shutil.copytree(built, tmp_path / "data")
    tar = folder / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    path = tmp_path / "r.html"
    assert main(["show", str(folder), "--html", str(path)]) == 0
    assert path.read_text().count("corrupt_shard") == 3


def test_bad_input_is_one_line_and_leaves_no_page(built, tmp_path, capsys):
    def fails(*arguments):
        assert main(["show", *map(str, arguments)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    page = tmp_path / "r.html"
    assert "does not exist" in fails(tmp_path / "none", "--html", page)
    assert "at least 1" in fails(built, "--html", page, "--samples", 0)
    assert "nowhere is not a folder" in fails(built, "--html", tmp_path / "nowhere" / "r.html")
    folder = shutil.copytree(built, tmp_path / "data")
    (folder / "shard-000000.tar").unlink()
    assert "not on disk" in fails(folder, "--html", page)
    assert not list(tmp_path.glob("r.html*"))
    assert json.loads((folder / "manifest.json").read_text())["samples"] == len(ShardReader(folder)) == 3
