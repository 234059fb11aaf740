"""Templates of input files and commands: ${name} and ${name:format}; `penstock wrap` fills them.

Namelists, JSON and TeX are full of braces and a shell of dollars, so only the pair `${` begins a
placeholder; `$${` is a literal one. A name is looked up and never evaluated: there is no attribute,
no index and no nesting in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Union

_PLACEHOLDER = re.compile(r"(?P<literal>\$\$\{)|\$\{(?P<inside>[^{}\n]*)(?P<end>\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Value = Union[float, int, str]


class TemplateError(ValueError):
    """A placeholder that cannot be filled; the text says where it is and what would do."""


class _Place(NamedTuple):
    name: str
    form: str  # a format specification of Python
    line: int


class Template:
    """One text with its placeholders; `source` says in messages where it comes from.

    Raises TemplateError for a placeholder that is none.
    """

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._pieces: list[str | _Place] = []
        at = 0
        for match in _PLACEHOLDER.finditer(text):
            self._pieces.append(text[at : match.start()])
            self._pieces.append("${" if match["literal"] else self._place(match, text))
            at = match.end()
        self._pieces.append(text[at:])

    @property
    def names(self) -> set[str]:
        """The names that it asks for."""
        return {piece.name for piece in self._pieces if isinstance(piece, _Place)}

    def check(self, known: Iterable[str]) -> None:
        """Raises TemplateError, with the valid names, for a name that is not known."""
        valid = sorted(known)
        for piece in self._pieces:
            if isinstance(piece, _Place) and piece.name not in valid:
                raise TemplateError(
                    f"{self._where(piece.line)} has the placeholder ${{{piece.name}}}. Valid are "
                    f"{', '.join(valid)}; a literal ${{ is written $${{."
                )

    def fill(self, values: Mapping[str, Value]) -> str:
        """The text with the values in it; numbers without a format keep all their digits."""
        self.check(values)
        return "".join(
            self._format(piece, values[piece.name]) if isinstance(piece, _Place) else piece
            for piece in self._pieces
        )

    def _place(self, match: re.Match[str], text: str) -> _Place:
        line = text.count("\n", 0, match.start()) + 1
        name, colon, form = match["inside"].partition(":")
        if not match["end"]:
            raise TemplateError(
                f"{self._where(line)} has a ${{ that is not closed in its line, or braces inside "
                "one. A placeholder is ${name} or ${name:.6e}; a literal ${ is written $${."
            )
        if not _NAME.fullmatch(name) or (colon and not form):
            raise TemplateError(
                f"{self._where(line)} has ${{{match['inside']}}}. A placeholder is a name, perhaps "
                "with a colon and a format: ${alpha}, ${T0:.6e}; there is no attribute, index or "
                "expression in it."
            )
        return _Place(name, form, line)

    def _format(self, place: _Place, value: Value) -> str:
        number: Value = value
        if place.form[-1:] in tuple("bdoxX") and isinstance(value, float) and value.is_integer():
            number = int(value)  # parameters travel as floats, whole numbers among them
        try:
            return format(number, place.form) if place.form else str(number)
        except ValueError as error:
            raise TemplateError(
                f"{self._where(place.line)} has ${{{place.name}:{place.form}}}, and {place.name} = "
                f"{value!r} cannot be written like that: {error}."
            ) from error

    def _where(self, line: int) -> str:
        return f"{self._source}, line {line},"
