"""Sets of places, (simulation, step) or (simulation, segment), as sorted integers; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Places:
    """Numbers places by the simulations that occur at all; ids may be any 64-bit numbers."""

    def __init__(self, ids: Array) -> None:
        """ids: ascending, each once."""
        self._ids = ids

    def keys(self, simulation: Array, number: Array) -> Array:
        """One integer a place, in the order of the arguments; simulation, number (n,)."""
        index = np.searchsorted(self._ids, simulation.astype(np.uint64)).astype(np.int64)
        keys: Array = (index << 32) | number.astype(np.int64)
        return keys

    def simulations(self, keys: Array) -> Array:
        found: Array = self._ids[keys >> 32]
        return found

    def by_simulation(self, keys: Array) -> Iterator[tuple[int, list[int]]]:
        """Each simulation with its steps or segments, both ascending."""
        keys = np.unique(keys)
        cuts = np.flatnonzero(np.diff(keys >> 32)) + 1
        for part in np.split(keys, cuts) if len(keys) else ():
            yield int(self._ids[part[0] >> 32]), (part & 0xFFFFFFFF).tolist()


def held(admitted: Array, segment_steps: int) -> Array:
    """How many steps each admitted segment has: the last one of a simulation may be short."""
    rest = admitted["n_steps"] - admitted["segment"].astype(np.int64) * segment_steps
    return np.where(admitted["n_steps"] < 0, segment_steps, np.clip(rest, 0, segment_steps))


def samples(admitted: Array, segment_steps: int, span: int) -> tuple[Array, Array]:
    """Simulation and first step of every sample of the segments; with span 1, every step."""
    first = admitted["segment"].astype(np.int64) * segment_steps
    return spread(admitted["simulation"], first, held(admitted, segment_steps) - span + 1)


def spread(simulation: Array, first: Array, n: Array) -> tuple[Array, Array]:
    """n consecutive steps from `first` on, of each simulation; none where n is below 1."""
    n = np.maximum(n, 0)
    offset = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
    return np.repeat(simulation, n), np.repeat(first, n) + offset


def without(keys: Array, others: Array) -> Array:
    """Those of `keys` that are not among the others; each once, ascending."""
    return np.setdiff1d(keys, others)


def repeated(keys: Array) -> Array:
    """Those that occur more than once."""
    found, n = np.unique(keys, return_counts=True)
    return found[n > 1]
