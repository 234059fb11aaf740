"""One rank of a training on scripted batches; the tests of ranks start it as a process.

`python ranks_program.py '{"rank": 0, "world": 2, "meet": "/tmp/x", "folder": "/tmp/y", ...}'`
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from trainer_scripted import ScriptedFeed, join, make_batches, make_plan

from penstock_server.ranks import Ranks
from penstock_server.trainer import train
from penstock_surrogates.batch import Batch

N_BATCHES = 200


def script(rank: int, world: int, n_batches: int) -> list[Batch]:
    """Rank r of two has its own batches; one rank alone has both side by side."""
    both = [make_batches(n_batches, seed=seed) for seed in (1, 2)]
    if world == 1:
        return [join(left, right) for left, right in zip(*both, strict=True)]
    return both[rank]


class Starving(ScriptedFeed):
    """From batch `first` on nothing comes for `seconds`."""

    def __init__(self, batches: list[Batch], first: int, seconds: float) -> None:
        super().__init__(batches, self._come)
        self._first, self._seconds = first, seconds
        self._until: float | None = None

    def _come(self, n: int) -> bool:
        if n != self._first:
            return True
        if self._until is None:
            self._until = time.monotonic() + self._seconds
        return time.monotonic() >= self._until


def run(spec: dict[str, Any]) -> dict[str, Any]:
    rank, world = spec["rank"], spec["world"]
    batches = script(rank, world, spec.get("n_batches", N_BATCHES))
    if rank == 1 and "keep" in spec:
        batches = batches[: spec["keep"]]
    feed = ScriptedFeed(batches)
    if rank == 1 and "starve_s" in spec:
        feed = Starving(batches, 50, spec["starve_s"])
    plan = make_plan(
        Path(spec["folder"]),
        ranks=world,
        size=8 // world,
        limits={"snapshot_batches": 40, **spec.get("limits", {})},
        dtype="float64",
        surrogate=spec.get("surrogate", "mlp"),
        schedule="cosine",
        planned_batches=N_BATCHES,
    )
    ranks = Ranks.join(rank, world, f"file://{spec['meet']}")
    seen: list[dict[str, Any]] = []
    try:
        outcome = train(plan, feed, seen.append, ranks)
    finally:
        ranks.leave()
    taken = sorted(feed.taken.values())
    return {**outcome, "taken": taken, "seen": len(seen), "calls": feed.calls}


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    print(json.dumps(run(json.loads(sys.argv[1]))))
