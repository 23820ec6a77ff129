"""Readers of the public suites' question files: tiny files of the same form, with videos where the suites have them."""

import pytest

from data_tools.errors import DataError
from pipelines.evaluation.understanding.question import Question, asked_text
from pipelines.evaluation.understanding.subtitles import Subtitle, lines_at, read_subtitles
from pipelines.evaluation.understanding.suites import MVBENCH_FOLDERS, read_questions
from support.suite_files import SUITES, VIDEO_MME, written


@pytest.mark.parametrize("suite", SUITES)
def test_a_suites_file_is_read(suite, tmp_path):
    name, rows, video, (id, category, question, options, answer) = SUITES[suite]
    path = written(tmp_path, name, rows, video)
    questions, left_out = read_questions(suite, path, tmp_path)
    assert questions[0] == Question(id, category, tmp_path / video, question, options, answer)
    assert left_out == {"video_mmmu": 1, "mmvu_val": 1}.get(suite, 0)
    assert len(questions) + left_out == len(rows)
    if suite == "own":
        assert questions[1].video == questions[0].video and questions[1].category == "all"


def test_a_folder_of_files_is_read(tmp_path):
    for task in ("action_antonym", "moving_count"):
        rows = [{"video": "1.mp4", "question": "What?", "candidates": ["a", "b"], "answer": "b"}] * 2
        written(tmp_path / "data", f"{task}.json", rows, f"{MVBENCH_FOLDERS[task]}/1.mp4")
    questions, _ = read_questions("mvbench", tmp_path / "data", tmp_path / "data")
    assert [q.id for q in questions] == [f"{task}/{k}" for task in ("action_antonym", "moving_count") for k in (0, 1)]


def test_subtitles_of_video_mme(tmp_path):
    path = written(tmp_path, "test.parquet", [VIDEO_MME], "data/fFjv93ACGo8.mp4")
    assert read_questions("videomme_w_subtitle", path, tmp_path)[0][0].subtitles is None
    srt = tmp_path / "subtitle" / "fFjv93ACGo8.srt"
    srt.parent.mkdir()
    white = '<font color="white" size=".72c">{}</font>'
    srt.write_text(f"1\n00:00:00,000 --> 00:00:01,500\n{white.format('Hello')}\n\n"
                   f"2\n00:01:02,250 --> 00:01:04,000\n{white.format('two')}\n{white.format('lines')}\n")  # fmt: skip
    assert read_questions("videomme_w_subtitle", path, tmp_path)[0][0].subtitles == srt
    assert read_questions("videomme", path, tmp_path)[0][0].subtitles is None
    assert read_subtitles(srt) == [Subtitle(0, 1.5, "Hello"), Subtitle(62.25, 64, "two lines")]
    srt.write_text("no times")
    with pytest.raises(DataError, match="is no .srt: 'no times' has no times"):
        read_subtitles(srt)


def test_lines_on_screen_with_the_frames():
    lines = [Subtitle(0, 1, "a"), Subtitle(1, 4, "b"), Subtitle(4.1, 4.9, "c"), Subtitle(9, 11, "d")]
    assert lines_at(lines, 10, 3) == ["a", "d"]  # at 0, 5 and 10 s
    assert lines_at(lines, 10, 11) == ["a", "b", "d"] and lines_at(lines, 10, 1) == ["a"]


def test_what_the_model_is_asked():
    question = Question("a", "x", None, "Which?", ("Red", "Blue"), "A")
    assert asked_text(question, [], False) == "Which?"
    shown = asked_text(question, ["Hello", "you"], True)
    assert shown.startswith("This video's subtitles are listed below:\nHello\nyou\nWhich?\n(A) Red\n(B) Blue\n")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"answer": "E"}, "row 1 is not of the form of videomme: the question 001-1 has no option 'E'"),
        ({"options": ["One."]}, "has 1 options: 2 to 26 can be asked"),
        ({"videoID": "other"}, "lacks the video data/other"),
        ({"options": None}, "row 1 is not of the form of videomme: it has no 'options'"),
    ],
)
def test_rows_of_another_form_are_refused(tmp_path, change, message):
    path = written(tmp_path, "test.parquet", [VIDEO_MME | change], "data/fFjv93ACGo8.mp4")
    with pytest.raises(DataError, match=message):
        read_questions("videomme", path, tmp_path)


def test_ambiguous_videos_repeated_ids_and_files_without_questions_are_refused(tmp_path):
    name, rows, _, _ = SUITES["lvbench"]
    for folder in ("a", "b"):
        path = written(tmp_path, name, rows * 2, f"{folder}/Cm73ma6Ibcs.mp4")
    with pytest.raises(DataError, match="has 2 videos of the name Cm73ma6Ibcs.mp4"):
        read_questions("lvbench", path, tmp_path)
    with pytest.raises(DataError, match="row 2: the id '0' is given twice"):
        read_questions("lvbench", path, tmp_path / "a")
    path = written(tmp_path, "open.json", SUITES["mmvu_val"][1][1:], "x.mp4")
    with pytest.raises(DataError, match="holds no multiple-choice question of mmvu_val"):
        read_questions("mmvu_val", path, tmp_path)
