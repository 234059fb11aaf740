"""The coordinator's SQLite database: simulations, leases and all else that it remembers.

One transaction for each event. On a local disk it has a write-ahead log; on NFS, Lustre and their
like, where that is not safe, a rollback journal, which costs a few round trips for each event.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

from penstock_server.coordinator.books import Saved
from penstock_server.coordinator.journal import KEPT
from penstock_server.coordinator.records import (
    RECORDS,
    Agent,
    Entry,
    Lease,
    Record,
    Shard,
    Simulation,
    Standing,
    Worker,
)
from penstock_server.file_system import on_network

AnyRecord = TypeVar("AnyRecord", bound=Record)
_TYPES = {"int": "INTEGER", "float": "REAL", "str": "TEXT", "bool": "INTEGER"}


class Store:
    """Opens or creates the database at `path`. Raises sqlite3.Error when it cannot."""

    def __init__(self, path: Path | str, network: bool | None = None) -> None:
        """network: whether the file system is one; None: look."""
        network = on_network(Path(path)) if network is None else network
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=10.0)
        self._connection.execute(f"PRAGMA journal_mode={'TRUNCATE' if network else 'WAL'}")
        self._connection.execute("PRAGMA synchronous=NORMAL")  # survives kill -9 of this process
        self._connection.execute("PRAGMA cache_size=-256")  # kB; rows are found by key, and few
        self._upserts = {}
        for record in RECORDS:
            columns = _columns(record)
            defined = ", ".join(f'"{c.name}" {_sql_type(c)}' for c in columns)
            key = ", ".join(f'"{name}"' for name in record.KEY)
            self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS {record.TABLE} ({defined}, PRIMARY KEY ({key}))"
            )
            marks = ", ".join("?" * len(columns))
            self._upserts[record] = f"INSERT OR REPLACE INTO {record.TABLE} VALUES ({marks})"

    def write(self, records: Iterable[Record]) -> None:
        """All of them or, if this process dies, none."""
        rows = [(self._upserts[type(record)], _row(record)) for record in records]
        if not rows:
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, row in rows:
                self._connection.execute(statement, row)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def read(self, record: type[AnyRecord], where: str = "1", *values: Any) -> list[AnyRecord]:
        """The records of one kind, in the order of their keys."""
        columns = _columns(record)
        names = ", ".join(f'"{c.name}"' for c in columns)
        order = ", ".join(f'"{name}"' for name in record.KEY)
        rows = self._connection.execute(
            f"SELECT {names} FROM {record.TABLE} WHERE {where} ORDER BY {order}", values
        )
        return [record(**_values(columns, row)) for row in rows]

    def saved(self) -> Saved | None:
        """All that an earlier coordinator wrote here; None in a new database."""
        standings = self.read(Standing)
        if not standings:
            return None
        newest = (
            "serial > (SELECT max(serial) FROM journal AS other "
            "WHERE other.stream = journal.stream) - ?"
        )
        return Saved(
            standings[0],
            self.read(Simulation),
            self.read(Lease),
            self.read(Worker),
            self.read(Agent),
            self.read(Shard),
            self.read(Entry, newest, KEPT),
        )

    def backup(self, path: Path | str) -> None:
        """Copy the database, complete and consistent, to `path` while it is in use."""
        target = sqlite3.connect(path)
        with target:
            self._connection.backup(target)
        target.close()

    def close(self) -> None:
        """May be called twice."""
        self._connection.close()


def _columns(record: type[Any]) -> list[Field[Any]]:
    return [column for column in fields(record) if column.metadata.get("persisted", True)]


def _sql_type(column: Field[Any]) -> str:
    return _TYPES.get(str(column.type).removesuffix(" | None"), "JSON")


def _row(record: Record) -> list[Any]:
    row = []
    for column in _columns(type(record)):
        value = getattr(record, column.name)
        row.append(json.dumps(value) if _sql_type(column) == "JSON" else value)
    return row


def _values(columns: Sequence[Field[Any]], row: Sequence[Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for column, value in zip(columns, row, strict=True):
        kind = _sql_type(column)
        values[column.name] = (
            json.loads(value)
            if kind == "JSON"
            else bool(value)
            if str(column.type) == "bool"
            else value
        )
    return values
