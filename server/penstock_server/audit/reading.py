"""A run's folder as the audit's tables, or one sentence that says why it cannot be audited."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from penstock_server import config, run_folder
from penstock_server.admission_journal import read_lines
from penstock_server.audit.database import Books, read_books
from penstock_server.audit.stored import stored_checksums
from penstock_server.audit.tables import Array, Tables
from penstock_server.checkpoint import newest_intact
from penstock_server.config import Campaign
from penstock_server.draw_log import draw_log_path, read_draws
from penstock_server.ledger import ADMITTED, CHUNK, SEGMENTS, Ledger
from penstock_server.run_folder import RunFolder


class AuditError(RuntimeError):
    """The folder cannot be audited; the text says why and what to do."""


def read_tables(folder: Path, data: bool = True) -> Tables:
    """Everything that anybody counted in a run that is not running. Raises AuditError.

    data: the fields of its data set are read too, if it has one; that may be many bytes.
    """
    paths, campaign = _open(folder)
    books = _books(paths)
    lines = _lines(paths, books.shards)
    length = campaign.stream.segment_steps
    try:
        stored = None
        if data and lines is not None and paths.data.is_file():
            stored = stored_checksums(paths.data, list(campaign.step_fields), length)
        return Tables(
            segment_steps=length,
            window=campaign.training.window,
            stride=campaign.training.stride,
            requested=books.requested,
            simulations=books.simulations,
            training=books.training,
            admitted=_admitted(paths, books.shards, lines, length),
            lines=lines,
            draws=_draws(paths.root, campaign.training.ranks),
            stored=stored,
            input_fields=bool(campaign.input_fields),
            resumed=books.resumed,
        )
    except (OSError, ValueError) as error:
        raise AuditError(f"The run {folder} is damaged: {error}.") from error


def _open(folder: Path) -> tuple[RunFolder, Campaign]:
    try:
        paths = run_folder.reopen(folder)
        campaign = config.load(paths.campaign)
    except (run_folder.RunFolderError, config.CampaignError) as error:
        raise AuditError(str(error)) from error
    if paths.running:
        raise AuditError(
            f"The run {folder} is still running: what is on its way would look lost. Wait for it, "
            "or stop it with Ctrl-C."
        )
    if campaign.mode != "online":
        raise AuditError(
            f'The run {folder} has mode = "{campaign.mode}"; audited are runs that train on the '
            'stream, mode = "online".'
        )
    return paths, campaign


def _books(paths: RunFolder) -> Books:
    path = paths.root / "coordinator.sqlite"
    if not path.is_file():
        raise AuditError(
            f"The run {paths.root} has no coordinator.sqlite, so nothing is known of its "
            "simulations: it ended before it began, or was not copied as a whole."
        )
    try:
        return read_books(path)
    except (sqlite3.Error, ValueError) as error:
        raise AuditError(
            f"{path} is damaged or of another version of penstock: {error}."
        ) from error


def _admitted(
    paths: RunFolder, shards: tuple[str, ...], lines: dict[str, Array] | None, length: int
) -> dict[str, Array]:
    """The ledgers as they stood at the end; of a killed run as they stand in memory, or else what
    its last checkpoint and its journals say together."""
    kept = {shard: paths.ledgers / f"ledger-{shard}" for shard in shards}
    alive = {shard: paths.shard(shard) / "ledger" for shard in shards}
    for found in (kept, alive):
        if all(path.is_file() for path in found.values()):
            return {shard: _ledger(path) for shard, path in found.items()}
        if some := [path for path in found.values() if path.is_file()]:
            lacking = next(path for path in found.values() if path not in some)
            raise AuditError(f"The run {paths.root} is damaged: {lacking} is missing.")
    if lines is None:
        raise AuditError(
            f"The run {paths.root} left neither ledgers nor journals: it was killed, or an earlier "
            "version made it, and what its shards admitted is not known. To go on with it: "
            f"penstock run --resume {paths.root}"
        )
    newest = newest_intact(paths.checkpoints)
    both = {}
    for shard in shards:
        path = newest and newest.ledgers / f"ledger-{shard}"
        before = _ledger(path) if path and path.is_file() else np.empty(0, ADMITTED)
        both[shard] = _together(before, lines[shard], length)
    return both


def _ledger(path: Path) -> Array:
    content = path.read_bytes()
    if len(content) % CHUNK.itemsize:
        raise AuditError(f"{path} is damaged: it is no whole number of ledger entries.")
    chunks = np.frombuffer(content, CHUNK)
    if np.any(chunks["used"] > 1) or np.any(chunks["first_segment"] % SEGMENTS):
        raise AuditError(f"{path} is damaged: there are entries that no ledger has.")
    return Ledger(path, writable=False).table()


def _together(before: Array, lines: Array, length: int) -> Array:
    """What a checkpoint's ledger has and what the journal tells of since then, each place once."""
    rows = np.zeros(len(lines), ADMITTED)
    rows["simulation"], rows["segment"] = lines["simulation"], lines["segment"]
    short = lines["n_steps"] < length  # the last segment of a simulation says how long it is
    ends = lines["segment"].astype(np.int64) * length + lines["n_steps"]
    known = dict(zip(lines["simulation"][short].tolist(), ends[short].tolist(), strict=True))
    rows["n_steps"] = [known.get(simulation, -1) for simulation in lines["simulation"].tolist()]
    both = np.concatenate([before, rows])
    _, first = np.unique(both[["simulation", "segment"]], return_index=True)
    return both[first]


def _lines(paths: RunFolder, shards: tuple[str, ...]) -> dict[str, Array] | None:
    found = {shard: paths.root / f"admissions-{shard}.bin" for shard in shards}
    missing = [path for path in found.values() if not path.is_file()]
    if len(missing) == len(found):
        return None
    if missing:
        raise AuditError(f"The run {paths.root} is damaged: {missing[0]} is missing.")
    return {shard: read_lines(path) for shard, path in found.items()}


def _draws(root: Path, ranks: int) -> tuple[Array, ...] | None:
    found = [draw_log_path(root, rank) for rank in range(ranks)]
    missing = [path for path in found if not path.is_file()]
    if len(missing) == ranks:
        return None
    if missing:
        raise AuditError(f"The run {root} is damaged: {missing[0]} is missing.")
    return tuple(read_draws(path) for path in found)
