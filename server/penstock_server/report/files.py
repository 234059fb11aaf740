"""JSON and CSV files of a run, read strictly: what is damaged or too new is said in a sentence."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class ReportError(RuntimeError):
    """No report can be made; the text says why and what to do."""


def read_json(path: Path, what: str = "") -> Mapping[str, Any] | None:
    """The object in the file, None without the file. Raises ReportError.

    what: the middle of its format's name, if that is not the name of the file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} is damaged: {error}.") from error
    if not isinstance(found, dict):
        raise ReportError(f"{path} is damaged: it should hold a JSON object, not {found!r:.40}.")
    known = f"penstock-{what or path.stem}-1"
    if found.get("format", known) != known:
        raise ReportError(
            f"{path} says that its format is {found['format']!r}, but this version of penstock "
            f"reads {known!r}; use the version that made the run."
        )
    return found


def read_history(path: Path) -> Mapping[str, list[float | None]] | None:
    """history.csv by columns, an empty cell as None; None without the file. Raises ReportError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReportError(f"{path} is damaged: {error}.") from error
    if not rows or "batches" not in rows[0]:
        raise ReportError(f"{path} is damaged: its first line should name the columns.")
    names = rows[0]
    columns: dict[str, list[float | None]] = {name: [] for name in names}
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise ReportError(
                f"{path} is damaged: line {line} has {len(row)} values, but the first line names "
                f"{len(names)}. Delete that line to leave it out."
            )
        for name, text in zip(names, row, strict=True):
            try:
                columns[name].append(float(text) if text else None)
            except ValueError:
                raise ReportError(
                    f"{path} is damaged: line {line} has {text!r} for {name}, no number. Delete "
                    "that line to leave it out."
                ) from None
    return columns


def at(values: Any, *keys: str) -> Any:
    """A value deep in JSON, or None where the way to it ends."""
    for key in keys:
        if not isinstance(values, Mapping):
            return None
        values = values.get(key)
    return values


def number(values: Any, *keys: str) -> float | None:
    """As `at`, if it is a number."""
    found = at(values, *keys)
    return float(found) if isinstance(found, (int, float)) and found == found else None


def table(values: Any, *keys: str) -> Mapping[str, Any]:
    """As `at`, if it is an object; else an empty one."""
    found = at(values, *keys)
    return found if isinstance(found, Mapping) else {}


def entries(values: Any, *keys: str) -> list[Mapping[str, Any]]:
    """As `at`, the objects of a list."""
    found = at(values, *keys)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
