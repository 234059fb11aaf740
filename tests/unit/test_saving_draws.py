"""A snapshot is written of draws that the shard knows of, on every rank that it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trainer_scripted import ScriptedFeed, TickingClock, make_batches, make_plan

from penstock_server import snapshot
from penstock_server.trainer import train


class ReportingFeed(ScriptedFeed):
    """Remembers up to which batch it was told to report its draws."""

    reported = 0

    def report(self) -> None:
        self.reported = max(self.taken, default=0)


def test_draws_are_reported_before_a_snapshot_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, write = ReportingFeed(make_batches(10)), snapshot.write
    written: list[tuple[int, int]] = []

    def note(root: Path, batch: int, *more: Any) -> snapshot.Snapshot:
        written.append((batch, feed.reported))
        return write(root, batch, *more)

    monkeypatch.setattr(snapshot, "write", note)
    plan = make_plan(tmp_path, limits={"snapshot_batches": 4})
    train(plan, feed, lambda progress: None, clock=TickingClock())
    assert written == [(0, 0), (4, 4), (8, 8), (10, 10)]
