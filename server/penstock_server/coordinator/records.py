"""What the coordinator remembers, one record for one row of its database; state and store share it.

FLEETING fields are not persisted: they are seconds of this process's clock or what the
next report says again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

QUEUED, RUNNING, ENDED = "queued", "running", "ended"
COMPLETED, FAILED, QUARANTINED, PARTIAL = "completed", "failed", "quarantined", "partial"
SETTLED_STATES = frozenset({COMPLETED, FAILED, QUARANTINED, PARTIAL})
ROLES = ("validation", "test", "train")  # in the order in which they are handed out


FLEETING = {"persisted": False}


@dataclass
class Simulation:
    """One simulation. `faults` are the solver's own, `losses` are not; `wanted` None means all.

    ended: its worker says that it is complete; completed: its shards have confirmed all segments.
    """

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    TABLE: ClassVar[str] = "simulations"
    id: int
    role: str
    parameters: dict[str, float]
    seed: int
    shards: list[str]
    state: str = QUEUED
    attempts: int = 0
    faults: int = 0
    losses: int = 0
    lease: int = 0  # the newest
    wanted: list[list[int]] | None = None
    delivered: dict[str, int] = field(default_factory=dict)  # shard -> segments
    steps: int | None = None
    segments: int | None = None
    reason: str = ""
    predecessor: int | None = None
    successor: int | None = None


@dataclass
class Lease:
    """One assignment of a simulation to a worker.

    running; refused: by a shard, whose report is awaited; ended; confirmed; failed: a fault of the
    solver; superseded: lost or withdrawn.
    """

    KEY: ClassVar[tuple[str, ...]] = ("lease",)
    TABLE: ClassVar[str] = "leases"
    lease: int
    simulation: int
    worker: str
    attempt: int
    state: str = RUNNING
    reason: str = ""
    steps: int | None = None
    progressed_at: float = field(
        default=0.0, metadata=FLEETING
    )  # or waited for credit, or was closed
    seen: dict[str, int] = field(default_factory=dict, metadata=FLEETING)  # shard -> steps
    held: dict[str, bool] = field(
        default_factory=dict, metadata=FLEETING
    )  # shard -> waits for credit


@dataclass
class Worker:
    """starting: no hello yet; idle; busy: it has a lease; ending: told to end; gone."""

    KEY: ClassVar[tuple[str, ...]] = ("worker",)
    TABLE: ClassVar[str] = "workers"
    worker: str
    agent: str = ""  # "" for one that was started by hand
    state: str = "starting"
    log: str = ""
    host: str = ""
    parts: int = 0
    lease: int = 0  # the one it works on, also after that was superseded
    assigned: int = 0  # how many simulations it was given
    sequence: int = -1
    answer: dict[str, Any] = field(default_factory=dict)
    heard_at: float = field(default=0.0, metadata=FLEETING)
    tail: str = field(default="", metadata=FLEETING)
    pid: int = field(default=0, metadata=FLEETING)


@dataclass
class Agent:
    """idle; working: it has a worker; lost: silent; left."""

    KEY: ClassVar[tuple[str, ...]] = ("agent",)
    TABLE: ClassVar[str] = "agents"
    agent: str
    incarnation: str = ""
    worker: str = ""
    state: str = "idle"
    heard_at: float = field(default=0.0, metadata=FLEETING)
    not_before: float = field(default=0.0, metadata=FLEETING)


@dataclass
class Shard:
    """A shard's place in the address book, and its receiver's newest report."""

    KEY: ClassVar[tuple[str, ...]] = ("shard",)
    TABLE: ClassVar[str] = "shards"
    shard: str
    address: str = ""
    epoch: int = 0
    heard_at: float | None = field(default=None, metadata=FLEETING)
    pid: int = field(default=0, metadata=FLEETING)
    counters: dict[str, Any] = field(default_factory=dict, metadata=FLEETING)
    seconds: dict[str, float] = field(default_factory=dict, metadata=FLEETING)  # busy, idle
    blocked: bool = field(default=False, metadata=FLEETING)
    told_stop: bool = field(default=False, metadata=FLEETING)


@dataclass
class Standing:
    """The campaign itself; one row.

    running; over: production is; trained: the trainer is done too; stopping: all are sent home.
    """

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    TABLE: ClassVar[str] = "standing"
    id: int
    run: str
    state: str = "running"
    why: str = ""
    leave: bool = False  # the supervisor said stop: when all have left, the coordinator leaves
    training_stop: str = ""  # why the trainer is to stop, once it is
    next_simulation: int = 0
    next_lease: int = 1
    next_worker: int = 1
    greeted: bool = False  # some worker once said hello
    dead_starts: int = 0  # workers in a row that ended without ever having had a simulation
    requested: int = 0


@dataclass
class Entry:
    """One line of the journal: of faults, events, progress or validated."""

    KEY: ClassVar[tuple[str, ...]] = ("stream", "serial")
    TABLE: ClassVar[str] = "journal"
    stream: str
    serial: int
    seconds: float
    body: dict[str, Any]


Record = Simulation | Lease | Worker | Agent | Shard | Standing | Entry
RECORDS: tuple[type[Record], ...] = (Simulation, Lease, Worker, Agent, Shard, Standing, Entry)


class Changes:
    """The records that an event changed, each once, in the order of the first change."""

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}

    def add(self, record: Record) -> None:
        self._records[id(record)] = record

    def take(self) -> list[Record]:
        records, self._records = list(self._records.values()), {}
        return records
