"""Reads the question files of public suites, as their owners and lmms-eval publish them, and our own.

A reader turns a row into a question, or into ``None`` if it is not multiple-choice. The videos are looked for below the
folder that the suite was unpacked to: at the path that the suite gives, else by their file names.
"""

import os
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from data_tools.errors import DataError
from data_tools.rows import TABLE_ENDINGS, read_rows
from pipelines.evaluation.options import LETTERS
from pipelines.evaluation.understanding.question import Question

VIDEO_ENDINGS = (".mp4", ".MP4", ".mkv", ".webm", ".avi", ".mov")

# Folders of MVBench's videos, by task.
MVBENCH_FOLDERS = {
    "action_antonym": "ssv2_video_mp4",
    "action_count": "perception/videos",
    "action_localization": "sta/sta_video_segment",
    "action_prediction": "star/Charades_segment",
    "action_sequence": "star/Charades_segment",
    "character_order": "perception/videos",
    "counterfactual_inference": "clevrer/video_validation",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/video_fps3_hq_segment",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "fine_grained_pose": "nturgbd_convert",
    "moving_attribute": "clevrer/video_validation",
    "moving_count": "clevrer/video_validation",
    "moving_direction": "clevrer/video_validation",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_segment",
    "object_shuffle": "perception/videos",
    "scene_transition": "scene_qa/video",
    "state_change": "perception/videos",
    "unexpected_action": "FunQA_test/test",
}


class Videos:
    """The videos below a folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def by_stem(self) -> dict[str, list[Path]]:
        """Paths of all videos, by their names without ending."""
        found: dict[str, list[Path]] = {}
        for place, _, names in os.walk(self.folder, followlinks=True):
            for name in sorted(names):
                if name.endswith(VIDEO_ENDINGS):
                    found.setdefault(Path(name).stem, []).append(Path(place) / name)
        return found

    def find(self, name: str) -> Path:
        """Finds a video by its path below the folder, with or without ending, else by its file name.

        Raises:
            DataError: There is none, or there are several of this name.
        """
        for path in (self.folder / name, *(self.folder / f"{name}{ending}" for ending in VIDEO_ENDINGS)):
            if path.is_file():
                return path
        base = Path(name).name
        named = self.by_stem.get(base, []) or self.by_stem.get(Path(name).stem, [])
        if len(named) != 1:
            told = f"has {len(named)} videos of the name" if named else "lacks the video"
            frames = f": {name} is a folder of pictures, make it {name}.mp4" if (self.folder / name).is_dir() else ""
            raise DataError(f"{self.folder} {told} {name}{frames}")
        return named[0]


# A suite's row, the file that it stands in, and the videos -> the question.
Reader = Callable[[dict[str, Any], Path, Videos], Question | None]


def plain_options(options: Iterable[Any]) -> tuple[str, ...]:
    """Returns options without the letters that some suites write before them, if all have their own.

    >>> plain_options(["A. Red", "B. Blue"])
    ('Red', 'Blue')
    >>> plain_options(["A. Red", "Blue"])
    ('A. Red', 'Blue')
    """
    texts = [str(option).strip() for option in options]
    marks = [re.match(rf"\(?{letter}[.:)]\s*(?=\S)", text) for letter, text in zip(LETTERS, texts)]
    if len(marks) == len(texts) and all(marks):
        return tuple(text[mark.end() :] for mark, text in zip(marks, texts) if mark)
    return tuple(texts)


def own(row: dict, file: Path, videos: Videos) -> Question:
    """Ours: id, question, options, answer; also category, video (default ID.mp4), subtitles (relative to the file)."""
    options = tuple(map(str, row["options"]))
    if options.count(row["answer"]) != 1:
        raise ValueError(f"the answer {row['answer']!r} is not among the options")
    subtitles = file.parent / row["subtitles"] if row.get("subtitles") else None
    video = videos.find(row.get("video") or f"{row['id']}.mp4")
    letter = LETTERS[options.index(row["answer"])]
    return Question(str(row["id"]), row.get("category", "all"), video, row["question"], options, letter, subtitles)


def video_mmmu(row: dict, file: Path, videos: Videos) -> Question | None:
    """Video-MMMU. Its three tracks are its folders or files. Open questions are left out."""
    if row.get("question_type", "multiple-choice") == "open" or not row.get("options"):
        return None
    track = next(
        (name for name in ("perception", "comprehension", "adaptation") if name in str(file).lower()), file.stem
    )
    name, options = str(row["id"]), plain_options(row["options"])
    return Question(f"{track}/{name}", track, videos.find(f"{name}.mp4"), row["question"], options, str(row["answer"]))


def mmvu_val(row: dict, file: Path, videos: Videos) -> Question | None:
    """MMVU's validation part. Open questions are left out."""
    if row["question_type"] != "multiple-choice":
        return None
    path = str(row.get("video_path") or row["video"])
    path = path.split("/resolve/main/")[-1]  # the published file gives an address
    category = Path(path).parent.name or "all"
    return Question(
        str(row["id"]), category, videos.find(path), row["question"],
        plain_options(text for text in row["choices"].values() if text), str(row["answer"]).strip(),
    )  # fmt: skip


def mvbench(row: dict, file: Path, videos: Videos) -> Question:
    """MVBench: a file for each task, TASK.json. The rows have no ids, so their number is added by the caller."""
    task = file.stem
    if task not in MVBENCH_FOLDERS:
        raise ValueError(f"{file.name} is no task of MVBench")
    options = tuple(map(str, row["candidates"]))
    letter = LETTERS[options.index(str(row["answer"]))]
    video = videos.find(f"{MVBENCH_FOLDERS[task]}/{row['video']}")
    return Question(f"{task}/{row['number']}", task, video, row["question"], options, letter)


def longvideobench(row: dict, file: Path, videos: Videos) -> Question:
    """LongVideoBench's validation part: options as a list ``candidates`` or as option0, option1, … up to ``N/A``."""
    options = row.get("candidates") or [row.get(f"option{k}", "N/A") for k in range(5)]
    return Question(
        str(row["id"]), str(row.get("question_category", "all")), videos.find(f"videos/{row['video_path']}"),
        row["question"], tuple(str(option) for option in options if option != "N/A"),
        LETTERS[int(row["correct_choice"])],
    )  # fmt: skip


def lvbench(row: dict, file: Path, videos: Videos) -> Question:
    """LVBench: options as a list, or on the lines behind the question."""
    question, options = str(row["question"]), row.get("options")
    if not options:
        question, *options = question.split("\n")
    kinds = row.get("question_type") or ["all"]
    category = kinds if isinstance(kinds, str) else str(kinds[0])
    return Question(
        str(row["uid"]), category, videos.find(str(row["video_path"])), question.strip(),
        plain_options(option for option in options if str(option).strip()), str(row["answer"]),
    )  # fmt: skip


def videomme(row: dict, file: Path, videos: Videos) -> Question:
    """Video-MME, without subtitles. Categories are its lengths: short, medium, long."""
    name = str(row["videoID"])
    options = plain_options(row["options"])
    return Question(
        str(row["question_id"]), row["duration"], videos.find(f"data/{name}"), row["question"], options, row["answer"]
    )


def videomme_w_subtitle(row: dict, file: Path, videos: Videos) -> Question:
    """Video-MME with subtitles, subtitle/ID.srt. Some of its videos have none."""
    without = videomme(row, file, videos)
    path = videos.folder / "subtitle" / f"{row['videoID']}.srt"
    return Question(**vars(without) | {"subtitles": path if path.is_file() else None})


SUITES: dict[str, Reader] = {
    "own": own,
    "video_mmmu": video_mmmu,
    "mmvu_val": mmvu_val,
    "mvbench": mvbench,
    "longvideobench_val_v": longvideobench,
    "lvbench": lvbench,
    "videomme": videomme,
    "videomme_w_subtitle": videomme_w_subtitle,
}


def read_questions(suite: str, path: Path, folder: Path) -> tuple[list[Question], int]:
    """Reads a suite's questions from a file, or from all tables below a folder.

    Args:
        suite: Name of the suite.
        path: The file (.json, .jsonl, .csv, .parquet), or a folder of such files.
        folder: Folder of the videos.

    Returns:
        The questions, and the number of rows that are not multiple-choice.

    Raises:
        DataError: A file cannot be read, a row is not of the suite's form, a video is missing, or nothing is asked.
    """
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in TABLE_ENDINGS) if path.is_dir() else [path]
    questions: dict[str, Question] = {}
    videos, left_out = Videos(folder), 0
    for file in files:
        for number, row in enumerate(read_rows(file, ["question"])[1]):
            try:
                question = SUITES[suite]({"number": number} | row, file, videos)
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                told = f"it has no {error}" if isinstance(error, KeyError) else str(error)
                raise DataError(f"{file}, row {number + 1} is not of the form of {suite}: {told}") from error
            if question is None:
                left_out += 1
            elif question.id in questions:
                raise DataError(f"{file}, row {number + 1}: the id {question.id!r} is given twice")
            else:
                questions[question.id] = question
    if not questions:
        raise DataError(f"{path} holds no multiple-choice question of {suite}")
    return list(questions.values()), left_out
