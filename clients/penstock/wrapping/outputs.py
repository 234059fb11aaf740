"""Which files hold a field, and which step of it: NAME=PATTERN[:SELECT]; pure.

A `*` in a pattern is the step: the numbers in what it stands for put the files in order, as a
person would (2 before 10, 0.5 before 1.25), and pair the files of several fields.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Union

_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)")

Key = tuple[tuple[int, Union[float, str]], ...]  # 0 and a number, 1 and a text: they compare


@dataclass(frozen=True)
class Output:
    """One field's files; `select` names what is read of them: data set, array or columns."""

    field: str
    pattern: str
    select: str = ""

    @property
    def one_a_step(self) -> bool:
        return "*" in self.pattern

    @property
    def suffix(self) -> str:
        """The format: .npy, .h5, ..."""
        return PurePosixPath(self.pattern).suffix.lower()


def files(folder: Path, pattern: str) -> list[str]:
    """The names, relative to the folder, that match a pattern."""
    if "*" not in pattern:
        return [pattern] if (folder / pattern).is_file() else []
    quoted = re.sub(r"[\[?]", r"[\g<0>]", pattern)  # of a glob only the star is meant
    return [path.relative_to(folder).as_posix() for path in folder.glob(quoted) if path.is_file()]


def key(pattern: str, name: str) -> Key | None:
    """Where a file stands among the steps: a value to sort by; None if it does not match."""
    match = re.fullmatch("([^/]*)".join(map(re.escape, pattern.split("*"))), name)
    if match is None:
        return None
    pieces = [piece for text in match.groups() for piece in _NUMBER.split(text) if piece]
    return tuple((0, float(piece)) if _NUMBER.fullmatch(piece) else (1, piece) for piece in pieces)


def number(of: Key) -> float:
    """The last number of a key, which counts steps or is a time; NaN if it has none."""
    numbers = [value for _, value in of if isinstance(value, float)]
    return numbers[-1] if numbers else math.nan
