"""What coordinator.sqlite says of a run, read without writing to it; `reading` calls it."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from penstock_server.audit.tables import Simulation, Training

# The steps are those of the newest lease: what its client said, when it said that it had ended.
SIMULATIONS = """
    SELECT s.id, s.role, s.state, l.steps, s.reason, s.parameters, s.predecessor
    FROM simulations AS s LEFT JOIN leases AS l ON l.lease = s.lease ORDER BY s.id
"""
STANDING = "SELECT state, requested, training_stop FROM standing"
PROGRESS = (
    "SELECT seconds, body FROM journal WHERE stream = 'progress' ORDER BY serial DESC LIMIT 1"
)
RESUMED = (
    "SELECT max(seconds) FROM journal WHERE stream = 'events' "
    "AND body LIKE '%The campaign was resumed%'"
)


@dataclass(frozen=True)
class Books:
    """The coordinator's."""

    simulations: tuple[Simulation, ...]
    requested: int
    shards: tuple[str, ...]
    training: Training
    resumed: bool


def read_books(path: Path) -> Books:
    """Raises sqlite3.Error, or ValueError, when it is damaged or of another version."""
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?{_access(path)}", uri=True, timeout=5.0
    )
    try:
        simulations = tuple(
            Simulation(i, role, state, steps, reason, tuple(json.loads(inputs).values()), before)
            for i, role, state, steps, reason, inputs, before in connection.execute(SIMULATIONS)
        )
        standing = connection.execute(STANDING).fetchone()
        if standing is None:
            raise ValueError("it knows of no campaign")
        state, requested, ordered = standing
        shards = tuple(str(name) for (name,) in connection.execute("SELECT shard FROM shards"))
        (resumed,) = connection.execute(RESUMED).fetchone()
        last = connection.execute(PROGRESS).fetchone()
    finally:
        connection.close()
    return Books(
        simulations,
        int(requested),
        shards,
        _training(last, resumed, str(state), bool(ordered)),
        resumed is not None,
    )


def _access(path: Path) -> str:
    """How it is opened. Without a log or journal beside it, the file is all there is: opened as
    immutable it can be read where nothing can be written."""
    journal = path.with_name(f"{path.name}-journal")
    if journal.exists() and journal.stat().st_size:
        return "mode=rw"  # of a coordinator that was killed: SQLite takes half an event back
    return "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"


def _training(
    last: tuple[float, str] | None, resumed: float | None, state: str, ordered: bool
) -> Training:
    """The newest progress; "done" counts if it is of this session, and its run was ended."""
    seconds, body = (0.0, {}) if last is None else (last[0], json.loads(last[1]))
    done = (
        body.get("state") == "done"
        and state in ("trained", "stopping")
        and (resumed is None or seconds >= resumed)
    )
    return Training(done, str(body.get("why") or ""), int(body.get("draws") or 0), ordered)
