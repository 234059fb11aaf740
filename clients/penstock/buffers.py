"""Memory for what is on its way to a shard, used again as soon as it is acknowledged.

Fresh memory for every step costs page faults, for large steps more than the copy into it. There is
never more here than was unacknowledged at one time, a window for each shard, and what the solver
has of it (spans.py). Owned by the link.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np


class Source(Protocol):
    """Where new memory comes from."""

    def allocate(self, n_bytes: int) -> np.ndarray | None:
        """Bytes that nobody else has; None: it has none, or none of this size."""


class Buffers:
    """Arrays by shape and dtype; the one that came back last is the warmest and goes out first."""

    def __init__(self, *sources: Source) -> None:
        """sources: they are asked in this order, and then numpy."""
        self._sources = sources
        self._free: dict[tuple[tuple[int, ...], np.dtype], list[np.ndarray]] = {}

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array to write to; its content is arbitrary."""
        free = self._free.get((shape, dtype))
        return free.pop() if free else self._new(shape, dtype)

    def give(self, array: np.ndarray) -> None:
        """Nobody reads the array any more; it is one that `take` gave."""
        self._free.setdefault((array.shape, array.dtype), []).append(array)

    def forget(self) -> None:
        """Other shapes are to come: what lies here free is of no use any more."""
        self._free.clear()

    def _new(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        n_bytes = math.prod(shape) * dtype.itemsize
        for source in self._sources:
            found = source.allocate(n_bytes)
            if found is not None:
                return found.view(dtype).reshape(shape)
        return np.empty(shape, dtype)
