"""Token ids of what people wrote, between what a template wrote.

A tokenizer takes "<|eot_id|>" or "<image>" in a caption for its control token. Here such words stay text: the string is
cut inside each of them, and the pieces are tokenised apart. Texts without such words are tokenised in one piece.
"""

import re
from collections.abc import Iterable
from itertools import pairwise

from transformers import PreTrainedTokenizerBase


def control_words(tokenizer: PreTrainedTokenizerBase, more: Iterable[str] = ()) -> re.Pattern:
    """Matches, at its beginning, every word that the tokenizer turns into a control token, and ``more`` words."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    words = {*added, *tokenizer.all_special_tokens, *more}
    return re.compile(f"(?=({'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))}))")


def literal_ids(
    tokenizer: PreTrainedTokenizerBase,
    control: re.Pattern,
    before: str,
    text: str,
    after: str = "",
    add_special_tokens: bool = True,
) -> list[int]:
    """Token ids of ``before + text + after``, with no control token from ``text``.

    Args:
        control: see :func:`control_words`.
        before, after: the template, whose control words become control tokens.
        add_special_tokens: whether the tokenizer adds its own at the beginning.
    """
    whole, end = before + text + after, len(before) + len(text)
    touching = (word for word in control.finditer(whole) if word.start() < end and word.end(1) > len(before))
    pieces = [whole[a:b] for a, b in pairwise([0, *(word.start() + 1 for word in touching), len(whole)])]
    first, *others = pieces
    ids = list(tokenizer(first, add_special_tokens=add_special_tokens).input_ids)
    for piece in others:
        ids += tokenizer(piece, add_special_tokens=False).input_ids
    return ids
