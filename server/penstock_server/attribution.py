"""Every second of ranks, workers and receivers by what it went to; for summary.json. Pure.

`run_records` calls it with the last status, and what `Steady` saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_server.advice import Measured, Setup, advise, produced_share
from penstock_server.steady import Steady
from penstock_server.time_spent import activities, causes

Seconds = dict[str, float]


def attribute(status: Mapping[str, Any], steady: Steady, setup: Setup) -> dict[str, Any]:
    """The value of "attribution" in summary.json; server/DATA.md says what each key is."""
    trainer = status.get("trainer") or {}
    time_s = dict(trainer.get("time_s") or {})
    told = dict(status.get("told_s") or {})
    shards = status.get("shards") or {}
    measured = measured_of(steady)
    share = produced_share(measured, setup)
    return {
        "ranks_s": trainer.get("ranks_s") or ([_rounded(activities(time_s))] if time_s else []),
        "waits_s": _rounded(split(causes(time_s), told)),
        "workers_s": _rounded(status.get("workers_s") or {}),
        "told_s": _rounded(told),
        "receivers_s": {
            name: _rounded(shard["seconds"]) for name, shard in shards.items() if shard["seconds"]
        },
        "side_by_side": {
            "seconds": round(measured.seconds, 3),
            "compute_s": round(measured.compute_s, 3),
            "waits_s": _rounded(measured.waits_s),
            "draws": int(measured.draws),
            "admitted": int(measured.admitted),
            "workers_s": _rounded(measured.workers_s),
            "cpu_s": _rounded(measured.cpu_s),
            "produced": None if share is None else round(share, 4),
        },
        "advice": advise(measured, setup),
    }


def measured_of(steady: Steady) -> Measured:
    """The sums of `Steady` as the rules of advice want them."""
    counts, trainer, told = (steady.group(name) for name in ("counts", "trainer", "told"))
    busy = [
        each.get("busy", 0.0) / sum(each.values())
        for each in steady.receivers().values()
        if sum(each.values()) > 0
    ]
    return Measured(
        seconds=counts.get("seconds", 0.0),
        waits_s=split(causes(trainer), told),
        compute_s=trainer.get("compute", 0.0),
        draws=counts.get("draws", 0.0),
        admitted=counts.get("admitted", 0.0),
        workers_s=steady.group("workers"),
        told_s=told,
        cpu_s=steady.group("cpu"),
        receivers_busy=max(busy, default=None),
    )


def split(waits: Mapping[str, float], told: Mapping[str, float]) -> Seconds:
    """Waiting for production, divided as the workers' own time with credit: computing, or waiting
    for the network to take a step. Where no client tells, all of it is the solver's."""
    sending = told.get("seconds", 0.0) - told.get("credit", 0.0)
    part = min(1.0, told.get("window", 0.0) / sending) if sending > 0 else 0.0
    found = dict(waits)
    if part and "solver" in found:
        found["network"] = found.get("network", 0.0) + part * found["solver"]
        found["solver"] *= 1 - part
    return found


def _rounded(seconds: Mapping[str, float]) -> Seconds:
    return {name: round(float(s), 3) for name, s in seconds.items()}
