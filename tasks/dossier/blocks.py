"""The parts of a page: sections of blocks, plain data that the template lays out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from tasks.dossier.verdict import Verdict

State = Literal["pass", "attention", "fail", "open"]


@dataclass(frozen=True)
class Cell:
    """A table cell: its text, a smaller note under it, a bar behind it (0 to 1), a state that colours it."""

    text: str
    note: str = ""
    bar: float | None = None
    state: State | None = None


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]
    title: str = ""
    kind: str = "bullets"


@dataclass(frozen=True)
class Table:
    """A table; the first ``num_text_columns`` columns are text, the others figures, set to the right.

    A table that ``stacks`` becomes one small block a row where the page is narrow.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    num_text_columns: int = 1
    stacks: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Plot:
    """An inline SVG with a caption."""

    svg: str
    caption: str
    kind: str = "plot"


@dataclass(frozen=True)
class Row:
    """Blocks side by side where the page is wide enough."""

    blocks: Sequence[Block]
    kind: str = "row"


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    items: Sequence[tuple[str, str]]
    kind: str = "facts"


@dataclass(frozen=True)
class Check:
    """One line of the compliance checklist."""

    state: State
    title: str
    evidence: str


@dataclass(frozen=True)
class Checks:
    """A checklist."""

    items: Sequence[Check]
    kind: str = "checks"


@dataclass(frozen=True)
class Answer:
    """One held-out question and the models' answers."""

    question: str
    reference: str
    replies: Sequence[tuple[str, str, str]]
    """Arm, reply and score."""


@dataclass(frozen=True)
class Answers:
    """Questions with their answers."""

    items: Sequence[Answer]
    kind: str = "answers"


@dataclass(frozen=True)
class Chain:
    """Steps of a hash chain: what happened, the digest, a note."""

    links: Sequence[tuple[str, str, str]]
    kind: str = "chain"


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Details:
    """Blocks that open on a click."""

    summary: str
    blocks: Sequence[Block]
    kind: str = "details"


Block = Text | Bullets | Table | Plot | Row | Facts | Checks | Answers | Chain | Code | Details


@dataclass(frozen=True)
class Section:
    """A titled part of the page."""

    id: str
    title: str
    blocks: Sequence[Block]
    short: str = ""
    """Its name in the page's contents."""


@dataclass(frozen=True)
class Tile:
    """One of the few figures at the top."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """Everything that the template shows."""

    model: str
    run: str
    written: str
    verdict: Verdict
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    links: Sequence[tuple[str, str]] = field(default_factory=tuple)
