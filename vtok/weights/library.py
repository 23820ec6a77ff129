"""Turns what a library raises at a user's file into one line for that user.

transformers, diffusers, tokenizers and torch raise errors of any kind at a wrong field. Only their own calls belong
within :func:`library_errors`, so that an error of ours keeps its traceback.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vtok.config import ConfigError

LONGEST = 300  # characters of a library's text; some list all that they know


@contextmanager
def library_errors(told: Callable[[str], ConfigError]) -> Iterator[None]:
    """Within, any error but a ConfigError becomes the ConfigError that ``told`` makes of its text."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # of any kind: the code is another's
        raise told(in_one_line(error)) from error


def in_one_line(error: BaseException) -> str:
    """Returns an error's text in one line, with the error's type if the text is only a word, as of a KeyError."""
    text = " ".join(str(error).split())
    if " " not in text:
        return f"{type(error).__name__} {text}".rstrip()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
