"""The judge behind an OpenAI-compatible server, against a stand-in that answers, refuses, hangs and talks nonsense."""

import io
import json
import threading
import time
from base64 import b64decode
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from data_tools.draws import Draws
from data_tools.items import Item, write_items
from data_tools.shapes import render, scene_of
from data_tools.video.encode import encode_mp4
from pipelines import evaluate
from pipelines.evaluation.judges import endpoint as judges_endpoint
from pipelines.evaluation.judges.endpoint import Endpoint
from pipelines.evaluation.judges.openai import OpenAIJudge, OpenAIJudgeConfig
from vtok.config import ConfigError

OPTIONS = ("To the left.", "Up.", "To the right.")
ITEM = Item("natural-0", "direction", "A dog runs to the left.", "Where does the dog run?", OPTIONS, OPTIONS[0])
HANG = "hang"


def chat(text):
    return 200, {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 100, "completion_tokens": 2}}


@contextmanager
def server(*script):
    """A server on loopback that answers by a script and repeats its last answer. Yields address and requests."""
    asked, left = [], list(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers.get("Authorization"), body))
            said = left.pop(0) if len(left) > 1 else left[0]
            if said == HANG:
                time.sleep(1)
                return
            status, answer = said
            answer = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1", asked
    finally:
        running.shutdown()
        running.server_close()


def clip():
    """A clip of a shape that moves to the right, (24, 64, 64, 3), and the times of its frames."""
    return render(scene_of("direction", "right", Draws(0, 0)), 24, 64), [frame / 8 for frame in range(24)]


def judge_at(url, cache, waits=None, **options):
    waits = [] if waits is None else waits
    return OpenAIJudge(
        OpenAIJudgeConfig(url, "some-model", frames=4), Endpoint(url, cache, sleep=waits.append, **options)
    )


def test_what_the_model_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv(judges_endpoint.KEY, "secret")
    frames, times = clip()
    with server(chat("(C)")) as (url, asked):
        assert judge_at(url, tmp_path).answer(frames, times, ITEM) == "To the right."
    ((path, key, body),) = asked
    assert path == "/v1/chat/completions" and key == "Bearer secret"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("some-model", 0, 16)
    first, *pictures, last = body["messages"][0]["content"]
    assert first["text"] == "These are 4 frames of a video, in order, over 2.9 seconds."
    assert ITEM.question in last["text"] and "(A) To the left.\n(B) Up.\n(C) To the right." in last["text"]
    for place, picture in zip((0, 8, 15, 23), pictures, strict=True):
        sent = Image.open(io.BytesIO(b64decode(picture["image_url"]["url"].split(",")[1])))
        assert np.abs(np.asarray(sent, int) - frames[place]).mean() < 4
    large = judge_at(url, tmp_path).picture(np.zeros((1000, 2000, 3), np.uint8))
    assert Image.open(io.BytesIO(b64decode(large.split(",")[1]))).size == (768, 384)


@pytest.mark.parametrize("said", ["I cannot say.", "A or B", "", None, "(D)"])
def test_refusals_and_nonsense_are_no_answer(said, tmp_path):
    with server(chat(said)) as (url, asked):
        assert judge_at(url, tmp_path).answer(*clip(), ITEM) is None
    assert len(asked) == 1  # a reply that names no option is not asked for again until it does


def test_replies_are_kept_and_counted(tmp_path):
    with server(chat("A")) as (url, asked):
        judges = [judge_at(url, tmp_path) for _ in range(2)]
        assert [judge.answer(*clip(), ITEM) for judge in judges] == ["To the left."] * 2
        other = Item("x", "direction", "p", "Another question?", OPTIONS, OPTIONS[0])
        judges[1].answer(*clip(), other)
    assert len(asked) == 2
    assert dict(judges[0].endpoint.counts) == {"requests": 1, "tokens_read": 100, "tokens_written": 2}
    assert "1 requests, 0 of them again; 1 from the cache; 100 tokens read, 2 written" in judges[1].endpoint.told()


def test_it_asks_again_when_busy_silent_or_incomprehensible(tmp_path):
    waits = []
    script = [(429, b"busy"), (503, b""), HANG, (200, b"<html>"), (200, {"choices": []}), chat("B")]
    with server(*script) as (url, asked):
        judge = judge_at(url, tmp_path, waits, timeout=0.5, attempts=6)
        assert judge.answer(*clip(), ITEM) == "Up."
    assert len(asked) == 6 and waits == [2, 4, 8, 16, 32] and judge.endpoint.counts["retries"] == 5


def test_it_gives_up_in_one_line_and_keeps_nothing(tmp_path):
    with server((500, b"out of memory")) as (url, asked):
        with pytest.raises(ConfigError, match="did not answer in 3 attempts: it answers 500: out of memory"):
            judge_at(url, tmp_path, attempts=3).answer(*clip(), ITEM)
    assert len(asked) == 3 and not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="did not answer in 2 attempts"):  # nobody listens there any more
        judge_at(url, tmp_path, attempts=2).answer(*clip(), ITEM)
    with server((401, b"no such key")) as (url, asked):
        with pytest.raises(ConfigError, match="rejects the question: it answers 401: no such key"):
            judge_at(url, tmp_path).answer(*clip(), ITEM)
    assert len(asked) == 1


def test_tv_align_with_the_judge(tmp_path, capsys):
    write_items([ITEM], tmp_path / "items.jsonl")
    (tmp_path / "natural-0.mp4").write_bytes(encode_mp4(clip()[0], 8, 18))
    arguments = ["tv-align", "--videos", tmp_path, "--items", tmp_path / "items.jsonl", "--output", tmp_path / "out"]
    with server(chat("(A)")) as (url, asked):
        evaluate.main([*map(str, arguments), "--judge", "openai", "--judge_url", url, "--judge_model", "m"])
    said = capsys.readouterr()
    assert "judge: 2 requests" in said.err and len(asked) == 2  # the video, and its first frame
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["tables"]["judge"][-1]["right"] == 1 and report["settings"]["judge_settings"]["model"] == "m"
    for wrong, told in (
        (["--judge", "openai"], "--judge openai and --judge_url go together"),
        (["--judge_model", "m"], "--judge openai and --judge_model go together"),
        (["--judge", "openai", "--judge_url", "localhost", "--judge_model", "m"], "is no address"),
    ):
        with pytest.raises(SystemExit) as end:
            evaluate.main([*map(str, arguments), *wrong])
        assert end.value.code == 2 and told in capsys.readouterr().err
