"""What the supervisor's display and report are made of; the answer to `status`."""

from __future__ import annotations

from typing import Any

from penstock_server.coordinator.books import Books
from penstock_server.coordinator.journal import (
    EVENTS,
    FAULTS,
    PROGRESS,
    STREAMS,
    VALIDATED,
)
from penstock_server.coordinator.records import (
    COMPLETED,
    ENDED,
    FAILED,
    PARTIAL,
    QUARANTINED,
    QUEUED,
    ROLES,
    RUNNING,
)
from penstock_server.coordinator.requests import Status

SHOWN = 1000  # workers and agents in one answer


def status(books: Books, request: Status) -> dict[str, Any]:
    """Everything for the display; `next` has the serials to ask from next time."""
    standing, journal = books.standing, books.journal
    return {
        "kind": "status",
        "name": books.settings.name,
        "state": standing.state,
        "why": standing.why,
        "training_stop": standing.training_stop,
        "seconds": round(journal.seconds, 3),
        "simulations": simulations(books),
        "roles": {
            role: {state: books.production.count(state, role) for state in (COMPLETED, FAILED)}
            for role in ROLES
        },
        "trainer": journal.newest(PROGRESS),
        "validation": journal.newest(VALIDATED),
        **(pages := _pages(books, request)),
        "next": {
            name: page[-1]["serial"] + 1 if page else journal.count(name)
            for name, page in pages.items()
        },
        "count": {name: journal.count(name) for name in STREAMS},
        "shards": {
            shard.shard: {
                "address": shard.address,
                "epoch": shard.epoch,
                "pid": shard.pid,
                "blocked": shard.blocked,
                "silent_s": None if shard.heard_at is None else books.now - shard.heard_at,
                "counters": shard.counters,
                "seconds": shard.seconds,
            }
            for shard in books.shards.values()
        },
        "workers": _workers(books),
        "workers_s": dict(books.worker_time.seconds),
        "told_s": dict(books.worker_time.told),
        "agents": [
            {
                "agent": agent.agent,
                "state": agent.state,
                "worker": agent.worker,
                "silent_s": round(books.now - agent.heard_at, 3),
            }
            for agent in list(books.agents.values())[:SHOWN]
        ],
    }


def simulations(books: Books) -> dict[str, int]:
    """The counts of summary.json; running includes what waits for its shards' confirmation."""
    production = books.production
    return {
        "requested": books.standing.requested,
        "completed": production.count(COMPLETED),
        "failed": production.count(FAILED),
        "quarantined": production.count(QUARANTINED),
        "retried": production.retried,
        "partial": production.count(PARTIAL),
        "running": production.count(RUNNING) + production.count(ENDED),
        "queued": production.count(QUEUED),
    }


def counters(books: Books) -> dict[str, float]:
    """For the metrics: name -> value."""
    counts = {f"simulations_{name}": float(n) for name, n in simulations(books).items()}
    alive = list(books.present.values())
    return {
        **counts,
        "leases": float(books.standing.next_lease - 1),
        "workers_alive": float(len(alive)),
        "workers_busy": float(sum(worker.state == "busy" for worker in alive)),
        "agents_alive": float(
            sum(agent.state in ("idle", "working") for agent in books.agents.values())
        ),
        "faults": float(books.journal.count(FAULTS)),
        "seconds": books.journal.seconds,
    }


def _pages(books: Books, request: Status) -> dict[str, list[dict[str, Any]]]:
    journal = books.journal
    return {
        FAULTS: journal.page(FAULTS, request.faults_since),
        EVENTS: journal.page(EVENTS, request.events_since),
        PROGRESS: journal.page(PROGRESS, request.progress_since),
        VALIDATED: journal.page(VALIDATED, request.validated_since),
    }


def _workers(books: Books) -> list[dict[str, Any]]:
    alive = list(books.present.values())
    shown = []
    for worker in alive[:SHOWN]:
        lease = books.production.leases.get(worker.lease)
        at_work = lease is not None and lease.state == "running"
        shown.append(
            {
                "worker": worker.worker,
                "agent": worker.agent,
                "state": worker.state,
                "host": worker.host,
                "pid": worker.pid,
                "parts": worker.parts,
                "log": worker.log,
                "simulation": lease.simulation if lease is not None and at_work else None,
                "steps": sum(lease.seen.values()) if lease is not None and at_work else 0,
                "waits_for_room": lease is not None and any(lease.held.values()),
            }
        )
    return shown
