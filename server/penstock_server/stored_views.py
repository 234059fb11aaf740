"""A data set as the validator sees it: held-out simulations, and the training steps once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock_server.dataset import DataSet
from penstock_server.evaluation import Trajectory
from penstock_surrogates.batch import Batch


class StoredHeldOut:
    """The simulations of each role that the campaign asks for."""

    def __init__(self, data: DataSet, rows: Mapping[str, Sequence[int]]) -> None:
        self._data, self._rows = data, rows

    def trajectories(self, role: str) -> list[Trajectory]:
        return self._data.trajectories(role, self._rows.get(role, ()))


class StoredPeek:
    """Every training step, each once."""

    def __init__(self, data: DataSet, rows: Sequence[int]) -> None:
        self._data, self._rows = data, rows
        self._batches: Iterator[Batch] | None = None

    def new_samples(self, max_samples: int) -> Batch | None:
        if self._batches is None:
            self._batches = self._data.batches("train", max_samples, self._rows)
        return next(self._batches, None)


def open_views(settings: dict[str, Any]) -> tuple[StoredHeldOut, StoredPeek]:
    """The validator's source: {"path": file, "rows": {role: rows}}."""
    data, rows = DataSet(settings["path"]), settings["rows"]
    return StoredHeldOut(data, rows), StoredPeek(data, rows["train"])
