"""Tells the coordinator how a shard stands, and takes its orders; part of the receiver's loop."""

from __future__ import annotations

import os
import time
from typing import Any

import zmq

from penstock.control import Asker
from penstock.keys import ClientKeys
from penstock_server.curve import Guard
from penstock_server.inside import Inside
from penstock_server.intake import Intake
from penstock_server.shard import Shard
from penstock_server.time_spent import TimeSpent

REPORT_S = 0.25
MOST_NEWS = 1000  # of a kind in one report, which has at most 1 MiB


class Reporter:
    """Posts a report whenever the last one was answered; news are repeated until they were."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        shard: Shard,
        settings: Any,
        intake: Intake,
        guard: Guard,
        spent: TimeSpent,
    ) -> None:
        """spent: of the receiver's loop, "busy" or "idle"."""
        self.stopped = False
        self.over = False
        self._shard, self._settings, self._intake = shard, settings, intake
        self._guard, self._spent = guard, spent
        self._inside = Inside(shard.slab, settings.parameters)
        keys = ClientKeys.given(settings.client_keys)
        self._asker = Asker(settings.coordinator, f"receiver/{settings.shard}", keys=keys)
        self._due_s = 0.0
        self._heard_s = time.monotonic()
        self._told: set[int] = set()
        self._pending: tuple[list[int], int] | None = None

    def turn(self) -> None:
        """Reads orders; sends the next report when it is due."""
        now = time.monotonic()
        answer = self._asker.poll()
        if answer is not None:
            self._heard_s = now
            self._obey(answer)
        if self._pending is None and now >= self._due_s:
            self._due_s = now + REPORT_S
            self._report()
        if now - self._heard_s > self._settings.patience_s:
            raise SystemExit(
                f"receiver {self._settings.shard}: the coordinator has been silent for "
                f"{self._settings.patience_s:.0f} s; the shard's memory stays for a restart."
            )

    def counts(self) -> dict[str, float]:
        """All counters and gauges of the shard, for reports and metrics."""
        shard, reservoir = self._shard, self._shard.reservoir
        ledger = shard.ledger.totals()
        return {
            # Copies: the thread that serves metrics calls this too.
            **{name: float(n) for name, n in dict(shard.counters).items()},
            **{name: float(n) for name, n in dict(self._intake.counters).items()},
            **self._guard.counts(),
            "admitted_samples": float(shard.admitted_samples),
            "stored": float(len(reservoir.stored)),
            "unseen": float(reservoir.n_undrawn),
            "capacity": float(shard.spec.n_slots * shard.spec.windows),
            "free_segments": float(max(0, reservoir.n_available - shard.credit.reserved)),
            "held": float(shard.credit.held),
            "segments_drawn": float(ledger["drawn"]),
            "segments_settled": float(ledger["settled"]),
            "segments_admitted": float(ledger["admitted"]),
            "slab_bytes": float(shard.spec.n_bytes),
            **self._inside.counts,
        }

    def close(self) -> None:
        self._asker.close()

    def _report(self) -> None:
        shard = self._shard
        fresh = [s for s in shard.delivered if s not in self._told][:MOST_NEWS]
        self._pending = (fresh, len(self._intake.refusals))
        self._inside.look(time.monotonic())
        self._asker.post(
            "report",
            shard=self._settings.shard,
            epoch=1,
            address=self._intake.address,
            pid=os.getpid(),
            counters=self.counts(),
            seconds=self._spent.so_far(),
            delivered=[[s, *shard.delivered[s]] for s in fresh],
            refused=self._intake.refusals[:100],
            progress=[
                [s.simulation, s.lease, s.steps_seen, shard.credit.waits(s)]
                for s in shard.streams.values()
                if s.live
            ],
            blocked=shard.credit.blocked,
        )

    def _obey(self, orders: dict[str, Any]) -> None:
        if self._pending is not None and orders.get("kind") == "orders":
            fresh, n_refusals = self._pending
            self._told.update(fresh)
            del self._intake.refusals[: min(n_refusals, 100)]
        self._pending = None
        self.over = self._shard.over = orders.get("production") == "over"
        self.stopped = bool(orders.get("stop"))
        for simulation in orders.get("retired", ()):
            self._shard.withdraw(int(simulation))
        for simulation, lease in orders.get("superseded", ()):
            self._shard.supersede(int(simulation), int(lease))
