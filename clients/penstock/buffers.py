"""Memory for what is on its way to a shard, used again as soon as it is acknowledged.

Fresh memory for every step costs page faults, for large steps more than the copy into it. There is
never more here than was unacknowledged at one time: a window for each shard. Owned by the link.
"""

from __future__ import annotations

import numpy as np


class Buffers:
    """Arrays by shape and dtype; the one that came back last is the warmest and goes out first."""

    def __init__(self) -> None:
        self._free: dict[tuple[tuple[int, ...], np.dtype], list[np.ndarray]] = {}

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array to write to; its content is arbitrary."""
        free = self._free.get((shape, dtype))
        return free.pop() if free else np.empty(shape, dtype)

    def give(self, array: np.ndarray) -> None:
        """Nobody reads the array any more."""
        self._free.setdefault((array.shape, array.dtype), []).append(array)
