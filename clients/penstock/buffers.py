"""Memory for what is on its way to a shard, used again as soon as it is acknowledged.

Fresh memory for every step costs page faults, for large steps more than the copy into it. There is
never more here than was unacknowledged at one time, a window for each shard, and what the solver
has of it (spans.py). Owned by the link.
"""

from __future__ import annotations

import math

import numpy as np

from penstock.arena import Arena


class Buffers:
    """Arrays by shape and dtype; the one that came back last is the warmest and goes out first."""

    def __init__(self, arena: Arena | None = None) -> None:
        """arena: where new arrays come from as long as it has room."""
        self._arena = arena
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
        if self._arena is not None:
            found = self._arena.allocate(math.prod(shape) * dtype.itemsize)
            if found is not None:
                return found.view(dtype).reshape(shape)
        return np.empty(shape, dtype)
