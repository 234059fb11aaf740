"""What happened while training and production ran side by side: the time that advice is about.

Before, the reservoir fills; after, there is nothing left to produce: neither says whether the
workers are many enough. Fed with the coordinator's statuses by `run_records`; pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_server.coordinator.plan import HELD_OUT

Totals = dict[str, dict[str, float]]
COUNTS = ("seconds", "draws", "admitted")  # of a trainer's report
RECEIVER = "receiver "  # and the shard


class Steady:
    """Sums of differences between one status and the next.

    A difference is left out where a count has gone back, because a process was started again.
    """

    def __init__(self) -> None:
        self._sums: Totals = {}
        self._last: Totals | None = None

    def take(self, status: Mapping[str, Any], cpu_s: Mapping[str, float]) -> None:
        """The newest status, and the core-seconds of the run's processes."""
        now = totals(status, cpu_s) if _side_by_side(status) else None
        last, self._last = self._last, now
        if last is None or now is None:
            return
        difference = _difference(last, now)
        if all(value >= 0 for group in difference.values() for value in group.values()):
            _add(self._sums, difference)

    def group(self, name: str) -> dict[str, float]:
        """By name: "counts" (seconds, draws, admitted), "trainer" (rank 0's seconds), "workers"
        and "told" (theirs), "cpu" (core-seconds)."""
        return dict(self._sums.get(name, {}))

    def receivers(self) -> dict[str, dict[str, float]]:
        """Seconds busy and idle of each training shard's receiver."""
        return {
            name.removeprefix(RECEIVER): dict(group)
            for name, group in self._sums.items()
            if name.startswith(RECEIVER)
        }


def totals(status: Mapping[str, Any], cpu_s: Mapping[str, float]) -> Totals:
    """Everything that only grows, of one status."""
    trainer = status.get("trainer") or {}
    shards = status.get("shards") or {}
    found: Totals = {
        "counts": {name: float(trainer.get(name) or 0) for name in COUNTS},
        "trainer": dict(trainer.get("time_s") or {}),
        "workers": dict(status.get("workers_s") or {}),
        "told": dict(status.get("told_s") or {}),
        "cpu": dict(cpu_s),
    }
    for name, shard in shards.items():
        if name != HELD_OUT and shard.get("seconds"):
            found[RECEIVER + name] = dict(shard["seconds"])
    return found


def _side_by_side(status: Mapping[str, Any]) -> bool:
    trainer = status.get("trainer") or {}
    producing = status.get("state") == "running" and not trainer.get("over")
    return producing and trainer.get("state") == "training"


def _difference(last: Totals, now: Totals) -> Totals:
    """A name that is new in its group began at 0; a group that is new has an unknown beginning."""
    return {
        name: {key: value - last[name].get(key, 0.0) for key, value in group.items()}
        for name, group in now.items()
        if name in last
    }


def _add(sums: Totals, difference: Totals) -> None:
    for name, group in difference.items():
        into = sums.setdefault(name, {})
        for key, value in group.items():
            into[key] = into.get(key, 0.0) + value
