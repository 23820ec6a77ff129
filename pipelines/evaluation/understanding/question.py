"""A multiple-choice question about a video, and the text that a model is asked."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.evaluation.options import LETTERS, PROMPT, listed


@dataclass(frozen=True)
class Question:
    """One question. Several may be about one video.

    Attributes:
        id: Unique in its suite.
        category: Its kind, as the suite names it.
        video: Path of the video.
        question: The question, without the options.
        options: At least two texts, without letters. Public suites repeat some.
        answer: Letter of the right option.
        subtitles: Path of the video's subtitles (.srt), if the model is to read them.
    """

    id: str
    category: str
    video: Path
    question: str
    options: tuple[str, ...]
    answer: str
    subtitles: Path | None = None

    def __post_init__(self):
        if not 2 <= len(self.options) <= len(LETTERS):
            raise ValueError(
                f"the question {self.id} has {len(self.options)} options: 2 to {len(LETTERS)} can be asked"
            )
        if self.answer not in LETTERS[: len(self.options)] or len(self.answer) != 1:
            raise ValueError(f"the question {self.id} has no option {self.answer!r}")


def asked_text(question: Question, subtitles: list[str], show_options: bool) -> str:
    """Returns the text that the model is asked.

    Args:
        question: The question.
        subtitles: Lines of subtitles, which go before the question.
        show_options: Whether the lettered options go behind it. Models that were trained on open questions know no
            such lists.
    """
    asked = question.question
    if show_options:
        asked = PROMPT.format(question=asked, options=listed(question.options))
    if subtitles:
        asked = "\n".join(["This video's subtitles are listed below:", *subtitles, asked])
    return asked
