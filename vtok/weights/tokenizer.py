"""Loads the tokenizer that lies beside weights."""

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from vtok.weights import Location
from vtok.weights.shipped import folder_or_id


def load_tokenizer(location: Location) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a folder, a shipped model or a hub id.

    Raises:
        ConfigError: There is none, or it cannot be used.
    """
    with location.building("files"):
        tokenizer = AutoTokenizer.from_pretrained(
            folder_or_id(location.weights), subfolder=location.subfolder, revision=location.revision
        )
        tokenizer("A text.")  # some wrong settings fail only in use
    return tokenizer
