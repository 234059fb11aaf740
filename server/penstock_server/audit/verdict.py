"""All checks of one run, and the three counts side by side; pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock_server.audit import contents, production, roles, training
from penstock_server.audit.findings import BROKEN, UNKNOWN, Check, Finding
from penstock_server.audit.places import samples
from penstock_server.audit.tables import Array, Tables
from penstock_server.coordinator.records import COMPLETED
from penstock_server.draw_log import joint_digest, sequence_digest

CHECKS = (
    production.named,
    production.admitted,
    production.once,
    training.trained,
    training.drawn_admitted,
    training.logged,
    roles.held_out,
    roles.disjoint,
    contents.alike,
)


@dataclass(frozen=True)
class Count:
    """One quantity as each party counts it by itself; None: it does not."""

    what: str
    clients: int | None
    shards: int | None
    trainer: int | None


@dataclass(frozen=True)
class Audit:
    """What was found. untrained: simulation -> first steps of samples that a stop rule left."""

    counts: tuple[Count, ...]
    checks: tuple[Check, ...]
    untrained: dict[int, list[int]]
    digests: tuple[str, ...]  # of each rank's sequence of draws
    digest: str  # of all of them

    @property
    def findings(self) -> list[Finding]:
        return [finding for check in self.checks for finding in check.findings]

    @property
    def clean(self) -> bool:
        return not self.findings

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        broken = [check.name for check in self.checks if check.verdict == BROKEN]
        unknown = [check.name for check in self.checks if check.verdict == UNKNOWN]
        left = f" Not known: {', '.join(unknown)}." if unknown else ""
        if broken:
            return f"{len(self.findings):,} findings: {', '.join(broken)}.{left}"
        return f"Nothing was lost, and nothing is there twice.{left}"


def audit(tables: Tables) -> Audit:
    """Every check, in the order of a simulation's life."""
    ranks = tables.draws or ()
    return Audit(
        counts=tuple(_counts(tables)),
        checks=tuple(check(tables) for check in CHECKS),
        untrained=training.untrained(tables),
        digests=tuple(sequence_digest(rows) for rows in ranks),
        digest=joint_digest(ranks) if ranks else "",
    )


def _counts(tables: Tables) -> list[Count]:
    found = []
    logged = tables.draws is not None
    admitted = tables.places.keys(*samples(tables.all_admitted, tables.segment_steps, 1))
    drawn = _drawn_steps(tables)
    for what, held_out in (("training", False), ("held-out", True)):
        own = [s for s in tables.completed if (s.role != roles.TRAIN) == held_out]
        said = [s.steps for s in own if s.steps is not None]
        ids = np.array([s.id for s in own], np.uint64)
        n_admitted, n_drawn = (_of(tables, keys, ids) for keys in (admitted, drawn))
        found += [
            Count(f"{what} simulations", len(said), n_admitted[0], n_drawn[0] if logged else None),
            Count(f"{what} steps", sum(said), n_admitted[1], n_drawn[1] if logged else None),
        ]
    ids = np.array([s.id for s in tables.simulations if s.state != COMPLETED], np.uint64)
    n_admitted, n_drawn = (_of(tables, keys, ids) for keys in (admitted, drawn))
    if n_admitted[1] or n_drawn[1]:
        what = "steps of others"
        found.append(Count(what, None, n_admitted[1], n_drawn[1] if logged else None))
    return found


def _drawn_steps(tables: Tables) -> Array:
    """Each step that was in a window that was drawn, once."""
    draws = tables.all_draws
    first = np.unique(tables.places.keys(draws["simulation"], draws["step"]))
    return np.unique(first[:, None] + tables.stride * np.arange(tables.window))


def _of(tables: Tables, keys: Array, ids: Array) -> tuple[int, int]:
    """Simulations and steps among the keys that belong to these simulations."""
    simulation = tables.places.simulations(np.unique(keys))
    own = simulation[np.isin(simulation, ids)]
    return len(np.unique(own)), len(own)
