"""history.csv of a run: one row a progress report, so that curves can be drawn against anything."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = (
    "seconds",
    "batches",
    "draws",
    "unique",
    "simulations",
    "loss",
    "learning_rate",
    "validation",
    "compute",
    "wait_data",
)


class History:
    """Appends to the file as reports come; a resumed run goes on in the same file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._validation: float | None = None
        if path.exists():
            _cut_half_a_row(path)
        if not path.exists() or not path.stat().st_size:
            self._write(COLUMNS)

    def validated(self, report: Mapping[str, Any]) -> None:
        """A validation error; it stands in the rows from now on."""
        self._validation = report.get("value")

    def progress(self, report: Mapping[str, Any], simulations: int) -> None:
        """One row; simulations is the number of completed ones."""
        share = report.get("time_share") or {}
        self._write(
            (
                report.get("seconds"),
                report.get("batches"),
                report.get("draws"),
                report.get("unique"),
                simulations,
                report.get("loss"),
                report.get("learning_rate"),
                self._validation,
                share.get("compute"),
                share.get("wait_data"),
            )
        )

    def _write(self, row: tuple[Any, ...]) -> None:
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(["" if value is None else value for value in row])


def _cut_half_a_row(path: Path) -> None:
    """The disk was full when the last one was written, or the machine lost its power."""
    with path.open("r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
