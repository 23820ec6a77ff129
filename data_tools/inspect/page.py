"""The report's HTML: pictures inline, no script, nothing from outside.

Whatever comes from the data is escaped, and the page's own policy forbids scripts and requests besides.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape


@dataclass(frozen=True)
class Picture:
    """A JPEG and what it shows."""

    jpeg: bytes
    title: str


@dataclass(frozen=True)
class Card:
    """What the page shows of one sample; `problem` where its pictures are missing."""

    row: int
    key: str
    shard: str
    captions: Sequence[str] = ()
    question: str = ""
    answer: str = ""
    key_frame: Picture | None = None
    strip: Sequence[Picture] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def page(title: str, about: str, cards: Iterable[Card]) -> Iterator[str]:
    """The page, piece by piece, so that it need not fit in memory."""
    yield _HEAD.format(title=escape(title), about=escape(about), style=_STYLE)
    for card in cards:
        yield _card(card)
    yield "</main>\n</body>\n</html>\n"


def _card(card: Card) -> str:
    key_frame = f'<div class="key">{_image(card.key_frame)}</div>' if card.key_frame else ""
    strip = "".join(f"<figure>{_image(p)}<figcaption>{escape(p.title)}</figcaption></figure>" for p in card.strip)
    return f"""<article>
<header><b>{escape(card.key)}</b><span>{escape(card.shard)} · row {card.row}</span></header>
<div class="clip">
{key_frame}
<div class="text">
{_texts(card)}
<dl>{"".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in card.facts.items())}</dl>
</div>
</div>
<div class="strip">{strip}</div>
</article>
"""


def _texts(card: Card) -> str:
    lines = [("caption", caption) for caption in card.captions]
    lines += [("question", card.question)] if card.question else []
    lines += [("answer", card.answer)] if card.answer else []
    lines += [("problem", card.problem)] if card.problem else []
    return "\n".join(f'<p class="{kind}">{escape(text)}</p>' for kind, text in lines)


def _image(picture: Picture) -> str:
    data = b64encode(picture.jpeg).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(picture.title)}">'


_STYLE = """
:root { color-scheme: light dark; --page: #f4f4f1; --card: #fff; --ink: #1d1f21; --quiet: #6b6f76; --line: #e2e2dd;
  --accent: #0b6e6e; --alarm: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #15171a; --card: #1e2125; --ink: #e6e6e3; --quiet: #989da5;
  --line: #30343a; --accent: #5fc9c4; --alarm: #ff8a80; } }
* { box-sizing: border-box; margin: 0; }
body { background: var(--page); color: var(--ink); padding: 32px 20px 48px;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1040px; margin: 0 auto; }
h1 { font-size: 26px; line-height: 1.2; overflow-wrap: anywhere; }
.about { color: var(--quiet); margin: 4px 0 24px; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 12px; margin-bottom: 20px;
  padding: 16px; break-inside: avoid; }
header { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 4px 16px; margin-bottom: 12px;
  font: 13px/1.4 ui-monospace, "SF Mono", "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
header span { color: var(--quiet); }
.clip { display: flex; flex-wrap: wrap; gap: 16px 20px; }
.key { flex: 0 0 auto; width: 320px; max-width: 100%; }
.key img { display: block; width: 100%; max-height: 240px; object-fit: contain; object-position: 0 0; }
.text { flex: 1 1 320px; min-width: 0; overflow-wrap: anywhere; }
.caption { font-size: 17px; line-height: 1.45; white-space: pre-line; }
.caption + .caption { border-top: 1px solid var(--line); margin-top: 8px; padding-top: 8px; }
.question { margin-top: 12px; padding-left: 12px; border-left: 3px solid var(--accent); }
.answer { padding-left: 12px; border-left: 3px solid var(--accent); color: var(--accent); font-weight: 600; }
.problem { color: var(--alarm); margin-top: 12px; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 8px 16px; margin-top: 16px; }
dt { color: var(--quiet); font-size: 12px; }
dd { font-size: 14px; }
dl div:last-child { grid-column: 1 / -1; }
.strip { display: grid; grid-template-columns: repeat(8, 1fr); gap: 6px; margin-top: 16px; }
@media (max-width: 560px) { .strip { grid-template-columns: repeat(4, 1fr); } }
.strip:empty { display: none; }
figure img { display: block; width: 100%; border-radius: 5px; }
figcaption { color: var(--quiet); font-size: 11px; text-align: center; margin-top: 2px; }
"""

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="about">{about}</p>
"""
