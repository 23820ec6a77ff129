"""Tiny files of the same form as the public suites' question files."""

import json

import pyarrow
import pyarrow.parquet

# Suite: (file, its rows, a video's path, the wanted first question without its video).
VIDEO_MME = {
    "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Astronomy", "url": "https://x",
    "videoID": "fFjv93ACGo8", "question_id": "001-1", "task_type": "Counting Problem", "question": "How many?",
    "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."], "answer": "C",
}  # fmt: skip
SUITES = {
    "video_mmmu": (
        "Perception/test-00000-of-00001.parquet",
        [
            {"id": "dev_Art_1", "question": "Which style?", "options": ["Cubism", "Realism"], "answer": "B",
             "link_selected": "x", "question_type": "perception"},
            {"id": "dev_Art_2", "question": "Why?", "options": [], "answer": "42", "link_selected": "x",
             "question_type": "open"},
        ],
        "Art/dev_Art_1.mp4",
        ("perception/dev_Art_1", "perception", "Which style?", ("Cubism", "Realism"), "B"),
    ),
    "mmvu_val": (
        "validation.json",
        [
            {"id": "validation_0", "video": "https://huggingface.co/datasets/x/MMVU/resolve/main/videos/Art/0.mp4",
             "question_type": "multiple-choice", "question": "What?", "answer": "E",
             "choices": {"A": "a", "B": "b", "C": "c", "D": "d", "E": "e"}, "metadata": {"subject": "Art"}},
            {"id": "validation_1", "video": "x", "question_type": "open-ended", "question": "Why?", "answer": "y",
             "choices": {"A": "", "B": "", "C": "", "D": "", "E": ""}},
        ],
        "videos/Art/0.mp4",
        ("validation_0", "Art", "What?", ("a", "b", "c", "d", "e"), "E"),
    ),
    "mvbench": (
        "json/action_antonym.json",
        [{"video": "74225.mp4", "question": "What happens?", "candidates": ["Opening.", "Closing."],
          "answer": "Closing."}],
        "ssv2_video_mp4/74225.mp4",
        ("action_antonym/0", "action_antonym", "What happens?", ("Opening.", "Closing."), "B"),
    ),
    "longvideobench_val_v": (
        "validation-00000-of-00001.parquet",
        [{"id": "86CxyhFV9MI_0", "video_id": "86CxyhFV9MI", "question": "Who?", "question_category": "S2E",
          "duration": 190.0, "duration_group": 600, "video_path": "86CxyhFV9MI.mp4", "subtitle_path": "x.json",
          "starting_timestamp_for_subtitles": 0.0, "option0": "A man", "option1": "A. Lincoln", "option2": "A dog",
          "option3": "N/A", "option4": "N/A", "correct_choice": 1}],
        "videos/86CxyhFV9MI.mp4",
        ("86CxyhFV9MI_0", "S2E", "Who?", ("A man", "A. Lincoln", "A dog"), "B"),
    ),
    "lvbench": (
        "train.json",
        [{"uid": "0", "video_path": "Cm73ma6Ibcs.mp4", "question": "Which year?\n(A) 1636\n(B) 1366\n(C) 1363",
          "answer": "A", "question_type": ["key information retrieval"], "time_reference": "00:15-00:19"}],
        "all/Cm73ma6Ibcs.mp4",
        ("0", "key information retrieval", "Which year?", ("1636", "1366", "1363"), "A"),
    ),
    "videomme": (
        "test.parquet", [VIDEO_MME], "data/fFjv93ACGo8.mp4",
        ("001-1", "short", "How many?", ("One.", "Two.", "Three.", "Four."), "C"),
    ),
    "own": (
        "items.jsonl",
        [{"id": "a", "category": "counting", "prompt": "Two cats.", "question": "How many?", "options": ["1", "2"],
          "answer": "2"},
         {"id": "b", "question": "Of what?", "options": ["Cats", "Dogs"], "answer": "Cats", "video": "a.mp4"}],
        "a.mp4",
        ("a", "counting", "How many?", ("1", "2"), "B"),
    ),
}  # fmt: skip


def written(folder, name, rows, video):
    """Writes the suite's file and the name of a video. Readers do not open the video."""
    for path in (folder / name, folder / video):
        path.parent.mkdir(parents=True, exist_ok=True)
    (folder / video).write_bytes(b"")
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name)
    else:
        text = "\n".join(map(json.dumps, rows)) if name.endswith("l") else json.dumps(rows)
        (folder / name).write_text(text)
    return folder / name
