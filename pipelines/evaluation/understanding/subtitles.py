"""Reads subtitles (.srt), and chooses those that are on screen with the frames that a model sees."""

import re
from pathlib import Path
from typing import NamedTuple

from data_tools.errors import DataError

TIMES = re.compile(r"(\d+):(\d+):(\d+)[,.](\d+)\s*-->\s*(\d+):(\d+):(\d+)[,.](\d+)")
TAG = re.compile(r"<[^>]*>|\{\\[^}]*\}")


class Subtitle(NamedTuple):
    """A text that is shown from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    text: str


def read_subtitles(path: Path) -> list[Subtitle]:
    """Reads a file of subtitles, without the tags of its texts.

    Raises:
        DataError: The file cannot be read, or is no .srt.
    """
    try:
        blocks = re.split(r"\n\s*\n", path.read_text(encoding="utf-8-sig").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    found = []
    for block in filter(str.strip, blocks):
        match = TIMES.search(block)
        if match is None:
            raise DataError(f"{path} is no .srt: {block.splitlines()[0][:60]!r} has no times")
        start, end = (seconds(*match.groups()[k : k + 4]) for k in (0, 4))
        text = " ".join(TAG.sub("", block[match.end() :]).split())
        found += [Subtitle(start, end, text)] if text else []
    return found


def seconds(hours: str, minutes: str, whole: str, thousandths: str) -> float:
    """Returns a time of an .srt in seconds."""
    return int(hours) * 3600 + int(minutes) * 60 + int(whole) + int(thousandths) / 10 ** len(thousandths)


def lines_at(subtitles: list[Subtitle], duration: float, times: int) -> list[str]:
    """Returns the texts that are on screen at one of some evenly spaced times, each once, in order.

    Args:
        subtitles: The video's subtitles.
        duration: Length of the video in seconds.
        times: Number of times. The first is 0, the last the end.
    """
    moments = [duration * k / max(times - 1, 1) for k in range(times)]
    return [each.text for each in subtitles if any(each.start <= moment < each.end for moment in moments)]
