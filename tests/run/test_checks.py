"""Arguments that make no sense are refused before a model is loaded: one line, exit code 2."""

import pytest
from safetensors import SafetensorError

from pipelines import evaluate, export, generate, reconstruct, tokenise, understand
from pipelines.cli.errors import user_errors
from support.commands import called
from support.launch import assert_user_error


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a file and a folder in it; loading a model there would fail otherwise."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "p.txt").write_text("A dog.\n")
    return tmp_path


PROMPT = ("--prompt", "A dog runs.", "--output", "x.mp4")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((*PROMPT, "--seconds", "0"), "--seconds must be positive and finite, not 0.0"),
        ((*PROMPT, "--seconds", "nan"), "--seconds must be positive and finite, not nan"),
        ((*PROMPT, "--seconds", "1e9", "--fps", "24"), "2.4e+10 frames: take at most 100,000"),
        ((*PROMPT, "--seconds", "0.01", "--fps", "24"), "no frame at all"),
        ((*PROMPT, "--fps", "-5"), "--fps must be positive and finite, not -5.0"),
        ((*PROMPT, "--fps", "inf"), "--fps must be positive and finite, not inf"),
        ((*PROMPT, "--steps", "0"), "--steps must lie between 1 and 10,000, not 0"),
        ((*PROMPT, "--steps", "-1"), "--steps must lie between 1 and 10,000, not -1"),
        ((*PROMPT, "--temperature", "-1"), "--temperature must be finite and not negative, not -1"),
        ((*PROMPT, "--temperature", "nan"), "--temperature must be finite and not negative, not nan"),
        ((*PROMPT, "--seed", str(2**64)), "seed must lie between 0 and 2^63 - 1"),
        ((*PROMPT, "--batch_size", "0"), "--batch_size must be at least 1, not 0"),
        ((*PROMPT, "--samples", "0"), "--samples must lie between 1 and 100,000, not 0"),
        ((*PROMPT, "--samples", str(10**12)), "--samples must lie between 1 and 100,000"),
        (("--prompt", "  ", "--output", "x.mp4"), "--prompt is empty"),
        (("--prompt", "A dog.", "--output", "folder"), "--output folder is a folder"),
        (("--prompt", "A dog.", "--output", ""), "--output . is a folder"),
        (("--prompt", "A dog.", "--output", "file/x.mp4"), "file is not a folder"),
        (("--prompt", "A dog.", "--output", "n" * 300 + ".mp4"), "its name is too long"),
        (("--prompt", "A dog.", "--output", "x.gif"), "--output x.gif must end in .mp4"),
        (("--prompt", "A dog.", "--output", "x"), "--output x must end in .mp4"),
        (("--prompts", "p.txt", "--output", "file"), "--output file is a file, and must be a folder"),
        ((*PROMPT, "--step", "5"), "--step goes with a run's folder"),
    ],
)
def test_generate(here, arguments, message):
    assert_user_error(called(generate.main, "--checkpoint", here / "none", *arguments), message)
    assert sorted(path.name for path in here.iterdir()) == ["file", "folder", "p.txt"]


def test_understand_export_tokenise_and_evaluate(here):
    model = ("--checkpoint", here / "none")
    ask = (understand.main, *model, "--video", "x.mp4")
    assert_user_error(called(*ask, "--max_new_tokens", 0), "--max_new_tokens must lie between 1 and 100,000, not 0")
    assert_user_error(called(*ask, "--key_frame_every", "inf"), "--key_frame_every must be positive and finite")
    assert_user_error(called(*ask, "--question", " "), "--question is empty")
    many = called(understand.main, *model, "--videos", "t.csv", "--output", "file")
    assert_user_error(many, "is a file, and must be a folder")
    assert_user_error(called(export.main, *model, "--output", "file"), "is a file, and must be a folder")
    assert_user_error(called(tokenise.main, "x.mp4", "--output", "folder"), "--output folder is a folder")
    shown = called(tokenise.main, "x.mp4", "--output", "t.safetensors", "--show", "p.jpg")
    assert_user_error(shown, "--show p.jpg must end in .png")
    judged = (evaluate.main, "tv-align", *model, "--output", "out")
    assert_user_error(called(*judged, "--steps", 0), "--steps must lie between 1 and 10,000")
    assert_user_error(called(*judged, "--fps", "nan"), "--fps must be positive and finite, not nan")


def test_a_vidtok(here):
    score = (evaluate.main, "vidtok", "--config", "x", "--checkpoint", "x", "--data", "x")
    again = (reconstruct.main, "--config", "x", "--checkpoint", "x", "--input", "x", "--output-dir", "new")
    for command in (score, again):
        assert_user_error(called(*command, "--fps", "nan"), "--fps must be positive and finite, not nan")
        assert_user_error(called(*command, "--height", 10**9), "--height must lie between 1 and 16,384, not 1000000000")
        assert_user_error(called(*command, "--chunk", 0), "--chunk must lie between 1 and 100,000, not 0")
    assert_user_error(called(*again[:-1], "file"), "is a file, and must be a folder")


def test_a_read_only_folder_is_told_of_before_anything_is_loaded(here, monkeypatch):
    monkeypatch.setattr("pipelines.cli.checks.os.access", lambda path, mode: False)
    assert_user_error(called(generate.main, "--checkpoint", "none", *PROMPT), "x.mp4: . is read-only for you")


def test_a_disk_that_is_full_at_the_end_is_one_line(capsys):
    with pytest.raises(SystemExit, match="2"), user_errors("generate"):
        raise OSError(28, "No space left on device", "x.mp4")
    assert capsys.readouterr().err == "generate: error: [Errno 28] No space left on device: 'x.mp4'\n"


@pytest.mark.parametrize(
    "error, words",
    [
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "No space left"),
        (MemoryError(), "out of memory: ask for less at once"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "out of memory"),
    ],
)
def test_what_the_machine_refuses_at_the_end_is_one_line(error, words, capsys):
    with pytest.raises(SystemExit, match="2"), user_errors("export"):
        raise error
    told = capsys.readouterr().err
    assert told.startswith("export: error: ") and words in told and told.count("\n") == 1


def test_an_error_of_ours_is_raised():
    for error in (RuntimeError("shapes differ"), SafetensorError("no such tensor"), OSError("no number")):
        with pytest.raises(type(error)), user_errors("export"):
            raise error
