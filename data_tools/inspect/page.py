"""The report as one HTML page (page.html): pictures inline, no scripts, no requests. All data is escaped."""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader

_TEMPLATES = Environment(
    loader=PackageLoader("data_tools.inspect", "."),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True)
class Picture:
    """A JPEG and its title."""

    jpeg: bytes
    title: str

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:image/jpeg;base64,{b64encode(self.jpeg).decode()}"


@dataclass(frozen=True)
class Card:
    """One sample on the page.

    Attributes:
        row: number of the sample.
        key: its key.
        shard: name of its shard.
        captions: all captions.
        pairs: its questions with their answers, "" for none: all turns of a conversation.
        key_frame: the first frame; None if it cannot be shown.
        strip: frames from first to last.
        facts: name -> value.
        problem: why there are no pictures, "" if there are.
    """

    row: int
    key: str
    shard: str
    captions: Sequence[str] = ()
    pairs: Sequence[tuple[str, str]] = ()
    key_frame: Picture | None = None
    strip: Sequence[Picture] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def texts(self) -> list[tuple[str, str]]:
        """(kind, text) of every text of the sample."""
        turns = [turn for question, answer in self.pairs for turn in (("question", question), ("answer", answer))]
        every = [("caption", caption) for caption in self.captions] + turns + [("problem", self.problem)]
        return [(kind, text) for kind, text in every if text]


def page(title: str, about: str, cards: Iterable[Card]) -> Iterator[str]:
    """Yield the page in pieces, so that it need not fit in memory."""
    return _TEMPLATES.get_template("page.html").generate(title=title, about=about, cards=cards)
