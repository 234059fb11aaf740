"""A feed for ranks in processes of their own: endless batches made from their number."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import torch
from trainer_scripted import ScriptedFeed, make_batches, moments_of

from penstock_surrogates.batch import Batch
from penstock_surrogates.normalisation import Moments

SIZE = 4


class MarkedFeed(ScriptedFeed):
    """Batch n of a rank is always the same; each take leaves a line with its time."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(make_batches(settings["n_batches"], SIZE, seed=settings["seed"]))
        self._marks = Path(settings["marks"])
        self._marks.with_suffix(".denormal").write_text(str(_denormal()))
        self._pace_s = settings.get("pace_s", 0.0)
        self._dies_at = settings.get("dies_at")
        self._fails_at = settings.get("fails_at")

    def take(self, batch: int) -> Batch:
        if batch == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if batch == self._fails_at:
            raise ValueError("This shard is upside down.")
        if self._pace_s:
            time.sleep(self._pace_s)
        with self._marks.open("a") as marks:
            print(batch, time.time(), os.getpid(), file=marks)
        return super().take(batch)

    def restore(self, batch: int) -> None:
        self._next = batch  # a new process, which knows nothing of what was taken before

    def moments(self) -> dict[str, Moments]:
        return moments_of(self.batches[:10])


def _denormal() -> float:
    """1e-39 as arithmetic of this process has it; it takes ten times as long if that is not 0."""
    return float((torch.full((8,), 1e-38) * 0.1).max())


def open_feed(settings: dict[str, Any]) -> MarkedFeed:
    """The factory that the rank group is given."""
    return MarkedFeed(settings)


def read_marks(path: Path) -> list[tuple[int, float, int]]:
    """(batch, time, pid) of every take."""
    if not path.exists():
        return []
    lines = [line.split() for line in path.read_text().splitlines()]
    return [(int(b), float(t), int(p)) for b, t, p in (line for line in lines if len(line) == 3)]
