"""What is remembered of a running campaign's statuses: counts, speeds, curves; the panel reads it.

A status is the coordinator's answer to the request `status`. No clock and no output here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock_server.coordinator.plan import HELD_OUT
from penstock_server.coordinator.records import SETTLED_STATES

RECENT_S = 20.0  # over which speeds are taken

Status = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """The counts of one status; samples of training simulations, all ranks together."""

    seconds: float
    received: int
    drawn: int
    batches: int
    settled: int  # simulations


@dataclass
class Recent:
    """What is remembered of the statuses so far, for speeds and curves; given to pure functions."""

    planned_batches: int | None = None
    points: deque[Point] = field(default_factory=lambda: deque(maxlen=200))
    losses: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=400))
    errors: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=400))
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=5))
    serials: dict[str, int] = field(default_factory=dict)  # stream -> the last one that was read

    def add(self, status: Status) -> None:
        """Remembers a status; one that comes again changes nothing."""
        point = point_of(status)
        if not self.points or point.seconds > self.points[-1].seconds:
            self.points.append(point)
        for entry in self._new(status, "progress"):
            if entry.get("loss") is not None:
                self.losses.append((int(entry.get("batches", 0)), float(entry["loss"])))
        for entry in self._new(status, "validated"):
            if entry.get("value") is not None:
                self.errors.append((int(entry.get("batch", 0)), float(entry["value"])))

    def per_second(self, what: str) -> float | None:
        """The speed of a count over the last seconds; None while nothing can be said."""
        if len(self.points) < 2:
            return None
        last = self.points[-1]
        inside = [p for p in self.points if last.seconds - p.seconds <= RECENT_S]
        first = inside[0] if len(inside) > 1 else self.points[-2]
        elapsed = last.seconds - first.seconds
        gained = getattr(last, what) - getattr(first, what)
        return max(0, gained) / elapsed if elapsed > 0 else None

    def _new(self, status: Status, stream: str) -> list[Mapping[str, Any]]:
        page = [e for e in status.get(stream) or () if e["serial"] > self.serials.get(stream, -1)]
        if page:
            self.serials[stream] = page[-1]["serial"]
        return page


def point_of(status: Status) -> Point:
    """The counts of a status."""
    trainer, counts = status.get("trainer") or {}, status["simulations"]
    return Point(
        seconds=float(status["seconds"]),
        received=total(status, "admitted_samples", False),
        drawn=int(trainer.get("draws") or 0),
        batches=int(trainer.get("batches") or 0),
        settled=sum(int(counts.get(name, 0)) for name in SETTLED_STATES),
    )


def total(status: Status, counter: str, held_out: bool = True) -> int:
    """A counter summed over all shards, or over those of the training ranks alone."""
    shards = (status.get("shards") or {}).values() if held_out else training_shards(status)
    return sum(int((shard.get("counters") or {}).get(counter, 0)) for shard in shards)


def training_shards(status: Status) -> list[Mapping[str, Any]]:
    return [s for name, s in (status.get("shards") or {}).items() if name != HELD_OUT]
