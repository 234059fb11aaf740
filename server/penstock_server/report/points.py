"""The designed inputs of a run and what became of them, out of coordinator.sqlite.

Opened read only, so that an archived run on a medium that cannot be written has a report too; the
coordinator's own Store would write to it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock_server.report.files import ReportError


@dataclass(frozen=True)
class Point:
    """One simulation."""

    simulation: int
    role: str
    state: str
    attempts: int
    reason: str
    parameters: Mapping[str, float]


def read_points(path: Path) -> tuple[Point, ...] | None:
    """All simulations by id; None without the file. Raises ReportError."""
    if not path.is_file():
        return None
    try:
        rows = _rows(path)
        return tuple(
            Point(int(i), str(role), str(state), int(attempts), str(reason), json.loads(inputs))
            for i, role, state, attempts, reason, inputs in rows
        )
    except (sqlite3.Error, ValueError) as error:
        raise ReportError(
            f"{path} is damaged or of another version of penstock: {error}."
        ) from error


def _rows(path: Path) -> list[tuple[int, str, str, int, str, str]]:
    query = "SELECT id, role, state, attempts, reason, parameters FROM simulations ORDER BY id"
    # Without a write-ahead log the file is all there is; opened as immutable it also leaves no
    # files of shared memory behind, and works on a medium that is read only.
    has_log = path.with_name(f"{path.name}-wal").exists()
    return _ask(f"{path.resolve().as_uri()}?{'mode=ro' if has_log else 'immutable=1'}", query)


def _ask(uri: str, query: str) -> list[tuple[int, str, str, int, str, str]]:
    connection = sqlite3.connect(uri, uri=True, timeout=5.0)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
