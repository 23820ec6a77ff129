"""The file that a table names, however it spells the name."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

FILE_URL = "file://"


def located(folder: Path, name: str) -> Path:
    """The file that a name means; `folder / name` if there is none.

    A name may be a file:// URL, or have space around it. Another system may have written it with backslashes, or
    accents in another form.
    """
    for one in _spellings(name):
        if os.path.exists(folder / one):
            return folder / one
    return next((found for one in _spellings(name) if (found := _walked(folder, one))), folder / name)


def key_of(folder: str, name: str) -> str:
    """A text that is the same for a path relative to `folder`, one with "./", and the absolute one. Reads no disk."""
    return os.path.normpath(os.path.join(folder, _plain(name)))


def _plain(name: str) -> str:
    """The path in a name, which may be a file:// URL, without space around it."""
    name = name.strip()
    return unquote(urlsplit(name).path) if name.startswith(FILE_URL) else name


def _spellings(name: str) -> list[str]:
    """The paths that a name may mean, the likeliest first."""
    plain = _plain(name)
    return list(dict.fromkeys((name, plain, plain.replace("\\", "/"))))


def _walked(folder: Path, name: str) -> Path | None:
    """The file where each part of the path may have its accents in another form; None if there is none."""
    place = folder
    for part in PurePosixPath(name).parts:
        found = next((place / one for one in _forms(part) if os.path.exists(place / one)), None)
        if found is None:
            return None
        place = found
    return place


def _forms(part: str) -> Iterator[str]:
    """A name with its accents as they are, in one character each, and in two."""
    yield part
    yield unicodedata.normalize("NFC", part)
    yield unicodedata.normalize("NFD", part)
