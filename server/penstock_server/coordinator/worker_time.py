"""What all workers together spend their time on, as far as the coordinator sees it.

Seen at every tick, from what the shards report four times a second: a sample, not a clock in each
worker. "computing" is all the time in which a worker has a simulation and may send; the network's
part of it is known where clients tell. In "room" and "limiter" it may not send: there is no slot
for its next segment, or the trainer is behind and holds all producers. It may still compute then,
at most one step each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock_server.coordinator.records import Lease, Shard, Worker

ACTIVITIES = ("starting", "computing", "room", "limiter", "idle", "ending")
TOLD = ("seconds", "credit", "window")


class WorkerTime:
    """Sums since this coordinator was started."""

    def __init__(self, now: float) -> None:
        self.seconds: dict[str, float] = {}  # worker-seconds by activity
        self.told = dict.fromkeys(TOLD, 0.0)  # by clients that measure, at the end of a simulation
        self._looked_at = now

    def look(self, now: float, activities: Iterable[str]) -> None:
        """Every worker that is there was at its activity since the last look."""
        passed = max(0.0, now - self._looked_at)
        self._looked_at = now
        for activity in activities:
            self.seconds[activity] = self.seconds.get(activity, 0.0) + passed

    def hear(self, time_s: Mapping[str, float]) -> None:
        """What a client says of one simulation; half of it is no use."""
        if all(time_s.get(name, -1.0) >= 0 for name in TOLD):
            for name in TOLD:
                self.told[name] += time_s[name]


def activity(worker: Worker, lease: Lease | None, shards: Mapping[str, Shard]) -> str:
    """One of ACTIVITIES. lease: the open one that it works on, if there is one."""
    if worker.state != "busy":
        return worker.state if worker.state in ("starting", "ending") else "idle"
    if lease is None or lease.state != "running":
        return "idle"
    waiting = [shards[name].counters for name, held in lease.held.items() if held]
    if not waiting:
        return "computing"
    only_held = all(each.get("held") and each.get("free_segments") for each in waiting)
    return "limiter" if only_held else "room"
