"""Runs ``evaluate.py understanding``: a model answers multiple-choice questions about given videos."""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

from pipelines.evaluation.results import item_result, lines_of, place_of, write_results
from pipelines.evaluation.stored_answers import answer_all, stored_answers
from pipelines.evaluation.tables import Line, as_table
from pipelines.evaluation.understanding.asking import BLIND, FIRST_FRAME, VIDEO, likeliest, said, sights, written
from pipelines.evaluation.understanding.question import Question
from pipelines.evaluation.understanding.subtitles import lines_at, read_subtitles
from pipelines.evaluation.understanding.suites import read_questions
from pipelines.inference.load import Run, load_run, load_untrained
from pipelines.inference.understand import Look, Understanding, duration_of

SUBTITLE_TIMES = 32  # moments whose subtitles the model reads, as lmms-eval's videomme_w_subtitle
LIKELIHOOD, LETTER = "likelihood", "letter"


def evaluate(a: argparse.Namespace) -> None:
    """Runs the command.

    Args:
        a: The arguments that ``evaluate.py`` parsed.

    Raises:
        ConfigError: The model or the output folder is wrong.
        DataError: The questions or videos are wrong.
    """
    questions, left_out = read_questions(a.suite, a.items, a.videos)
    if left_out:
        print(f"{left_out} rows are not multiple-choice and are left out", file=sys.stderr)
    model = {"checkpoint": str(a.checkpoint.resolve()), "ema": a.ema} if a.checkpoint else {
        "config": str(a.config.resolve())
    }  # fmt: skip
    common = model | {
        "suite": a.suite, "videos": str(a.videos.resolve()), "max_frames": a.max_frames,
        "show_options": not a.hide_options, "questions": fingerprint(questions),
    }  # fmt: skip
    load = partial(load_run, a.checkpoint, a.ema) if a.checkpoint else partial(load_untrained, a.config, drawn=True)
    tables = ask_all(questions, cache(load), common, a.output)
    for name, lines in (tables or {}).items():
        print(f"{name}\n{as_table(lines)}")


def fingerprint(questions: list[Question]) -> str:
    """Returns a hash of all that is asked, so that answers to other questions are not taken for these."""
    plain = json.dumps([asdict(question) for question in questions], default=str)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def ask_all(
    questions: list[Question], load: Callable[[], Run], common: dict, output: Path
) -> dict[str, list[Line]] | None:
    """Asks about this rank's share of the videos. If all answers exist then, writes the report.

    Args:
        questions: All questions.
        load: Loads the model. It is called only if an answer is missing.
        common: Settings that are stored with every answer.
        output: Folder of the answers and the report.

    Returns:
        Lines of a table by scorer, or ``None`` if answers are missing.

    Raises:
        ConfigError: ``output`` holds answers of another evaluation.
    """
    groups: dict[Path, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.video, []).append(question)
    named = {f"{number:06d}": (video, group) for number, (video, group) in enumerate(groups.items())}
    answer_all(list(named), output, common, lambda name: asked(load(), *named[name], common))
    stored = stored_answers(list(named), output, common)
    if stored is None:
        return None
    answers = {id: answer for one in stored for id, answer in one["answers"].items()}
    items = [
        item_result(
            q.id, q.category, place_of(q.video, output), "", q.question, q.options, q.answer, sayings(q, answers[q.id])
        )
        for q in questions
    ]
    scorers = {LIKELIHOOD: [LIKELIHOOD, *controls(LIKELIHOOD)]}
    if common["show_options"]:
        scorers[LETTER] = [LETTER, *controls(LETTER)]
    tables = {name: lines_of(items, *names) for name, names in scorers.items()}
    write_results(output, common | {"step": stored[0]["step"]}, tables, items)
    return tables


def controls(scorer: str) -> list[str]:
    """Returns the names of a scorer's answers without the video."""
    return [f"{control} {scorer}" for control in (FIRST_FRAME, BLIND)]


def asked(run: Run, video: Path, questions: list[Question], common: dict) -> dict:
    """Asks all questions about a video, which is decoded and embedded once; returns the answers for JSON."""
    config, framework, step = run
    frames, every = Understanding(config, framework).seen(video, Look(max_frames=common["max_frames"]))
    seen = sights(framework, frames, every)
    answers = {}
    for question in questions:
        lines = []
        if question.subtitles:
            lines = lines_at(read_subtitles(question.subtitles), duration_of(video), SUBTITLE_TIMES)
        answers[question.id] = {
            name: said(framework, sight, question, lines, common["show_options"]) for name, sight in seen.items()
        }
    return {"answers": answers, "frames": len(frames), "tokens": seen[VIDEO].visual.shape[1], "step": step}


def sayings(question: Question, answer: dict[str, dict]) -> dict[str, str | None]:
    """Returns the letters that a model said, by scorer and control."""
    found: dict[str, str | None] = {}
    for name, each in answer.items():
        prefix = "" if name == VIDEO else f"{name} "
        found[f"{prefix}{LIKELIHOOD}"] = likeliest(each)
        if each["reply"] is not None:
            found[f"{prefix}{LETTER}"] = written(each, question)
    return found
