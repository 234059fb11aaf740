"""What a page is made of; sections build it, `page` renders it. All text is plain, not HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from penstock_server.pictures.twice import Drawn


@dataclass(frozen=True)
class Table:
    """The first cell of a row is its header; from column `n_text` on cells are figures."""

    KIND: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_text: int = 1
    strong: frozenset[int] = frozenset()  # rows that matter most


@dataclass(frozen=True)
class Picture:
    KIND: ClassVar[str] = "picture"
    drawn: Drawn
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Text:
    KIND: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Missing:
    """Why something is not here, and how to get it."""

    KIND: ClassVar[str] = "missing"
    text: str


@dataclass(frozen=True)
class Code:
    KIND: ClassVar[str] = "code"
    text: str
    summary: str = ""  # with one, it is folded away


Block = Table | Picture | Text | Missing | Code


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


@dataclass(frozen=True)
class Card:
    """A figure that the page opens with."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    title: str
    subtitle: str
    verdict: str
    cards: Sequence[Sequence[Card]]  # rows
    sections: Sequence[Section] = field(default_factory=tuple)
