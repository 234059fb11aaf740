"""Why a comparison cannot go on, in a sentence for the user; raised all over `compare`."""

from __future__ import annotations


class CompareError(RuntimeError):
    """The text says what was expected, what came and what to do; `detail` is a program's output."""

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail
