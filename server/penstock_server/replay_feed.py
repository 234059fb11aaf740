"""The feed of a rank in a replay: the batches of another run's log, out of a data set.

Each sample is held against the checksums that the log has of it, so that a solver that does not
reproduce itself is told at the first batch in which it shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock_server.dataset import gather
from penstock_server.draw_log import Draws, checksums, contents, read_draws
from penstock_server.feed import Stock
from penstock_server.stored_feed import StoredFeed, StoredFeedSettings
from penstock_surrogates.batch import Batch

Array = npt.NDArray[Any]


class NotReproduced(RuntimeError):
    """The solver gave something else than it did in the run that is replayed."""


@dataclass(frozen=True)
class ReplayFeedSettings:
    """The stored feed's, and the log of this rank."""

    stored: dict[str, Any]  # of StoredFeedSettings
    draws: str


class ReplayFeed(StoredFeed):
    """Batch n is what the log has under n; there is none where this rank had none."""

    def __init__(self, settings: ReplayFeedSettings) -> None:
        super().__init__(StoredFeedSettings(**settings.stored))
        self._draws: Draws = read_draws(Path(settings.draws))
        numbers = self._draws["batch"]
        last = int(numbers[-1]) if len(numbers) else 0
        self._ends = np.searchsorted(numbers, np.arange(last + 1), side="right")
        self._row = {int(s): row for row, s in enumerate(self._group.simulation) if s >= 0}

    def stock(self, timeout_s: float) -> Stock:
        ready = len(self._logged(self._next + 1))
        return replace(super().stock(timeout_s), ready=ready, unseen=len(self._draws))

    def take(self, batch: int) -> Batch:
        logged = self._logged(batch)
        self._next = batch
        simulations = logged["simulation"].tolist()
        missing = [each for each in simulations if each not in self._row]
        if missing:
            raise NotReproduced(f"Simulation {missing[0]} was not computed again, and batch "
                                f"{batch} has a sample of it.")  # fmt: skip
        row = np.array([self._row[each] for each in simulations], dtype=np.int64)
        window, stride = self._settings.window, self._settings.stride
        first = logged["step"].astype(np.int64)
        wanted = first[:, None] + stride * np.arange(window)
        if not self._group.stored[row[:, None], wanted].all():
            raise NotReproduced(f"Batch {batch} has a step that was not computed again.")
        found = gather(self._group, row, first, window, stride)
        # HDF5 has fields by name; sums, and whoever trains, go by the campaign's order.
        order = [name for name in self._settings.components if name in found.fields]
        found = replace(found, fields={name: found.fields[name] for name in order})
        _compare(logged, found, batch)
        return found if self._patches is None else self._patches.cut(found, batch)

    def skip(self, batch: int) -> None:
        """A round in which this rank has no part."""
        self._next = batch

    def _logged(self, batch: int) -> Draws:
        if not 0 < batch < len(self._ends):
            return self._draws[:0]
        return self._draws[self._ends[batch - 1] : self._ends[batch]]


def _compare(logged: Draws, found: Batch, batch: int) -> None:
    """Raises NotReproduced for the first sample with other inputs or other fields."""
    sums = {"inputs": checksums(found.parameters.numpy())}
    if logged["content"].any():
        sums["content"] = contents(found)
    for what, ours in sums.items():
        wrong = np.flatnonzero(logged[what] != np.array(ours, dtype=np.uint32))
        if len(wrong):
            first = logged[wrong[0]]
            raise NotReproduced(
                f"Step {first['step']} of simulation {first['simulation']}, in batch {batch}, has "
                f"other {'parameters' if what == 'inputs' else 'fields'} than in the run that is "
                "replayed: the solver, its version or the campaign has changed."
            )


def open_feed(settings: dict[str, Any]) -> ReplayFeed:
    """The feed factory of the rank group: settings as a plain dict."""
    return ReplayFeed(ReplayFeedSettings(**settings))
