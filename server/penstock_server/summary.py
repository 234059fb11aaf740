"""summary.json, the contract for scripts: what a run did, from its last status; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

# What was not taken at the shards' ports: of running simulations; by who speaks for another part;
# no message at all; of another campaign; and connections that are not read for such messages.
DOOR = (
    "refused_messages",
    "strange_messages",
    "malformed",
    "foreign",
    "dropped_connections",
)
MONOTONE = (
    "received",
    "duplicates",
    "bytes",
    "evicted",
    "refused",
    *DOOR,
    "resyncs",
    "handshakes_refused",
)


class ShardCounts:
    """Counters of the shards over restarts of their receivers, which begin at zero again."""

    def __init__(self) -> None:
        self._past: Counter[str] = Counter()
        self._now: dict[str, tuple[int, dict[str, float]]] = {}

    def update(self, shards: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes the newest report of each shard."""
        for name, report in shards.items():
            pid, counters = int(report["pid"]), dict(report["counters"])
            before = self._now.get(name)
            if before is not None and before[0] != pid:
                self._past.update({k: int(before[1].get(k, 0)) for k in MONOTONE})
            if counters:
                self._now[name] = (pid, counters)

    def total(self, counter: str, held_out: bool = True) -> int:
        """Over all shards; what is not monotone is taken as it stands."""
        now = sum(
            int(counters.get(counter, 0))
            for name, (_, counters) in self._now.items()
            if held_out or name != "held-out"
        )
        return now + (self._past[counter] if counter in MONOTONE else 0)


def summarise(
    status: Mapping[str, Any],
    counts: ShardCounts,
    *,
    seconds: float,
    phases: Mapping[str, float],
    about: Mapping[str, Any],
    cpu_s: Mapping[str, float] | None = None,
    written_fields: int = 0,
    attribution: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of summary.json; times in seconds, samples as the trainer counts them.

    cpu_s: core-seconds of "solvers", "training", "server" and "all". written_fields: bytes.
    attribution: what `attribution.attribute` makes.
    """
    trainer: Mapping[str, Any] = status.get("trainer") or {}
    validation: Mapping[str, Any] = status.get("validation") or {}
    training_s = float(trainer.get("seconds") or 0.0)
    draws, unique = int(trainer.get("draws") or 0), int(trainer.get("unique") or 0)
    admitted = counts.total("admitted_samples", held_out=False)
    if about.get("mode") == "online" and draws:
        # The trainer's own count is older than its last batch: a shard notes a draw after it.
        unique = admitted - counts.total("unseen", held_out=False)
    share = trainer.get("time_share") or {}
    return {
        **about,
        "state": status.get("state"),
        "why": trainer.get("why") or status.get("why"),
        "simulations": status["simulations"],
        "samples": {
            "received": counts.total("received"),
            "admitted": admitted,
            "duplicates": counts.total("duplicates"),
            "trained_unique": unique,
            "trained_total": draws,
            "untrained_by_budget": max(0, admitted - unique),
        },
        "batches": int(trainer.get("batches") or 0),
        "throughput": {
            "draws_per_s": draws / training_s if training_s else 0.0,
            "unique_per_s": unique / training_s if training_s else 0.0,
        },
        "time_share": {
            name: float(share.get(name, 0.0))
            for name in ("compute", "wait_data", "validate", "other")
        },
        "waits_s": trainer.get("waits_s") or {},
        "attribution": dict(attribution or {}),
        "advice": (attribution or {}).get("advice", ""),
        "loss": trainer.get("loss"),
        "validation": {
            "metric": validation.get("metric"),
            "value": validation.get("value"),
            "baseline": validation.get("baseline"),
            "linear": validation.get("linear"),
            "per_field": validation.get("per_field"),
            "test": validation.get("test"),
        },
        "bytes": {"streamed": counts.total("bytes"), "written_fields": written_fields},
        "door": {name: counts.total(name) for name in DOOR},
        "handshakes_refused": counts.total("handshakes_refused")
        + int(status.get("handshakes_refused") or 0),
        "faults": list(status.get("faults") or ()),
        "cpu_s": dict(cpu_s or {}),
        "seconds": seconds,
        "seconds_by_phase": dict(phases),
    }
