"""The process of one shard: receives parts into the slab, acknowledges, hands batches to its rank.

Started by the supervisor as `python -m penstock_server.receiver --settings FILE`; a restarted one
maps the same slab again. Its parts: a Shard (what is where), an Intake (the data socket), a
Dispenser (the feed socket), a Reporter (the coordinator). They don't know each other; the loop
here calls them in turn.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from penstock.processes import die_with_parent
from penstock_server import slab as slabs
from penstock_server.admission_journal import begin_life
from penstock_server.curve import Guard
from penstock_server.dispenser import Dispenser
from penstock_server.intake import Intake
from penstock_server.ledger import Ledger
from penstock_server.metrics import serve_counts
from penstock_server.physics import Physics, find_check
from penstock_server.processes import allow_many_files
from penstock_server.reporter import Reporter
from penstock_server.reservoir import Reservoir
from penstock_server.shard import Shard
from penstock_server.slab import NOTED, SNAPSHOT, Slab, SlabSpec
from penstock_server.time_spent import TimeSpent, WallClock

POLL_MS = 20


@dataclass(frozen=True)
class ReceiverSettings:
    """Everything that a receiver is told; written by the supervisor, read once."""

    shard: str
    campaign: int
    folder: str  # tmpfs; slab and ledger
    address: str  # data socket, tcp://
    feed: str  # feed socket, ipc://
    coordinator: str
    policy: str
    slots: int
    segment_steps: int
    window: int
    stride: int
    max_steps: int
    max_parts: int
    rows: int
    seed: int
    threshold: int  # stored samples from which batches are handed out
    most_simulations: int  # their numbers are below; a client could make up others
    parameters: list[str]
    fields: dict[str, Any]  # name -> {"shape", "dtype"}, what is sent
    inputs: dict[str, Any]
    order: list[str]
    most_waiting: int = 0  # messages of a connection, see sizes
    patience_s: float = 120.0
    metrics_port: int = 0
    checksums: bool = False
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)  # of fields, if given
    check: str | None = None  # module:name, see penstock_server.physics
    resume_ledger: str | None = None
    journal: str | None = None
    keeper: bool = False  # a keeper stores what is admitted, before it may be evicted
    server_keys: str | None = None  # file for the data socket; None: it is open to all
    client_keys: str | None = None  # file for asking the coordinator
    extra: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> ReceiverSettings:
        return cls(**json.loads(path.read_text()))

    def spec(self) -> SlabSpec:
        return SlabSpec(
            n_slots=self.slots,
            segment_steps=self.segment_steps,
            window=self.window,
            stride=self.stride,
            n_parameters=len(self.parameters),
            fields={n: (tuple(f["shape"]), f["dtype"]) for n, f in self.fields.items()},
            inputs={n: (tuple(f["shape"]), f["dtype"]) for n, f in self.inputs.items()},
            n_rows=self.rows,
            max_parts=self.max_parts,
        )


def make_shard(settings: ReceiverSettings) -> Shard:
    """Creates the shard's memory, or maps what an earlier receiver of this shard left."""
    folder = Path(settings.folder)
    ledger_path = folder / "ledger"
    if slabs.exists(folder):
        ledger = Ledger(ledger_path)
        slab = Slab.attach(folder, writable=True)
    else:  # the ledger first: where a slab stands, its ledger does too
        folder.mkdir(parents=True, exist_ok=True)
        if settings.resume_ledger:
            ledger = Ledger.resume(Path(settings.resume_ledger), ledger_path)
        else:
            ledger = Ledger(ledger_path)
        slab = Slab.create(folder, settings.spec())
        if settings.journal:
            begin_life(Path(settings.journal))
    rng = np.random.default_rng([settings.seed, *settings.shard.encode()])
    reservoir = Reservoir(settings.policy, slab.drawn, rng, settings.keeper)
    return Shard(
        slab,
        ledger,
        reservoir,
        settings.order,
        settings.max_steps,
        settings.checksums,
        Path(settings.journal) if settings.journal else None,
        Physics(
            settings.ranges,
            find_check(settings.check) if settings.check else None,
            settings.parameters,
            settings.inputs,
        ),
        settings.most_simulations,
    )


def serve(settings: ReceiverSettings) -> None:
    """Runs the receiver until the coordinator says stop, or is silent for patience_s."""
    shard = make_shard(settings)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    guard = Guard(context, settings.server_keys, f"receiver {settings.shard}")
    intake = Intake(
        context, shard, settings.campaign, settings.address, guard, settings.most_waiting
    )
    dispenser = Dispenser(context, shard, settings.feed, settings.threshold)
    spent = TimeSpent(WallClock(), "busy")
    reporter = Reporter(context, shard, settings, intake, guard, spent)
    serve_counts(
        settings.metrics_port,
        "receiver",
        {"shard": settings.shard},
        reporter.counts,
        lambda: {(name, ""): seconds for name, seconds in dict(spent.seconds).items()},
    )
    poller = zmq.Poller()
    for socket in (intake.socket, dispenser.socket, *guard.sockets):
        poller.register(socket, zmq.POLLIN)
    incarnation = time.time_ns()
    _write_books(shard, reporter.over, incarnation)  # before anybody is answered
    try:
        while not reporter.stopped:
            spent.on("idle")
            poller.poll(POLL_MS)
            spent.on("busy")
            shard.look_at_keeper()
            guard.turn()
            intake.turn()
            dispenser.turn()
            reporter.turn()
            _write_books(shard, reporter.over, incarnation)
    finally:
        for part in (guard, intake, dispenser, reporter):
            part.close()
        context.destroy(linger=200)


def _write_books(shard: Shard, over: bool, incarnation: int) -> None:
    reservoir = shard.reservoir
    books = shard.slab.books
    books[SNAPSHOT + 1 : NOTED] = (
        shard.admitted_samples,
        len(reservoir.stored),
        reservoir.n_undrawn,
        shard.spec.n_slots * shard.spec.windows,
        shard.complete_simulations(),
        shard.credit.blocked,
        shard.credit.pressure,
        over,
        incarnation,
    )


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
    die_with_parent(signal.SIGTERM)
    allow_many_files()
    serve(ReceiverSettings.load(arguments.settings))


if __name__ == "__main__":
    main()
