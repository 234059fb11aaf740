"""Says on which line of a TOML text each key stands; called by `config` to place its errors.

tomllib checks the grammar first, so this scanner may trust that the text is valid.
"""

from __future__ import annotations

import re
import tomllib

Path = tuple[str, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}\n#]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' + r"|'''.*?'{3,5}" + r'|"(?:\\.|[^"\\\n])*"' + r"|'[^'\n]*'",
    re.DOTALL,
)


def key_lines(text: str) -> dict[Path, int]:
    """Every key path of a valid TOML text with its line, counted from 1.

    Elements of arrays have their index as the last name: ("fields", "u", "shape", "0").
    """
    return _Scanner(text.replace("\r\n", "\n")).document()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}

    def document(self) -> dict[Path, int]:
        table: Path = ()
        arrays: dict[Path, int] = {}
        while self.skip_blank():
            if self.take("[["):
                start = self.at
                name = self.indexed(self.key(), arrays)
                arrays[name] = arrays.get(name, -1) + 1
                table = (*name, str(arrays[name]))
                self.note(table, start)
                self.take("]]")
            elif self.take("["):
                start = self.at
                table = self.indexed(self.key(), arrays)
                self.note(table, start)
                self.take("]")
            else:
                self.pair(table)
        return self.lines

    def indexed(self, name: Path, arrays: dict[Path, int]) -> Path:
        """The name with the index of the newest element behind each parent that is an array."""
        path: Path = ()
        for part in name[:-1]:
            path = (*path, part)
            if path in arrays:
                path = (*path, str(arrays[path]))
        return (*path, name[-1])

    def pair(self, table: Path) -> None:
        start = self.at
        path = (*table, *self.key())
        self.note(path, start)
        self.take("=")
        self.value(path)

    def key(self) -> Path:
        """A dotted key, bare or quoted."""
        parts: list[str] = []
        while True:
            self.skip_blank()
            if match := _STRING.match(self.text, self.at):
                parts.append(tomllib.loads(f"v = {match.group()}")["v"])
            elif match := _BARE_KEY.match(self.text, self.at):
                parts.append(match.group())
            else:
                raise ValueError(
                    f"Expected a TOML key, came {self.text[self.at : self.at + 20]!r}."
                )
            self.at = match.end()
            if not self.take("."):
                return tuple(parts)

    def value(self, path: Path) -> None:
        self.skip_blank()
        if self.take("["):
            index = 0
            while not self.take("]"):
                self.note((*path, str(index)), self.at)
                self.value((*path, str(index)))
                self.take(",")
                index += 1
        elif self.take("{"):
            while not self.take("}"):
                self.pair(path)
                self.take(",")
        else:
            match = _STRING.match(self.text, self.at) or _SCALAR.match(self.text, self.at)
            if match is None:
                raise ValueError(
                    f"Expected a TOML value, came {self.text[self.at : self.at + 20]!r}."
                )
            self.at = match.end()

    def note(self, path: Path, at: int) -> None:
        """Keeps the first line of the path and of its parents."""
        line = self.text.count("\n", 0, at) + 1
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def take(self, token: str) -> bool:
        self.skip_blank()
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def skip_blank(self) -> bool:
        """Moves behind white space and comments; False at the end of the text."""
        match = _BLANK.match(self.text, self.at)
        assert match is not None  # the pattern matches the empty string
        self.at = match.end()
        return self.at < len(self.text)
