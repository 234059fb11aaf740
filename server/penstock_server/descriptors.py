"""Writing the descriptors of a slab: whose segment a slot holds, in an order that survives a kill.

Scalars go through memoryviews of the shared pages, at a fraction of the cost of numpy's structured
scalars; many slots at once go through its columns. Readers use the slab's array. Owned by the slots
of a shard.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock_server.slab import COMMITTED, DESCRIPTOR, FREE, OPEN

Slots = npt.NDArray[np.int64]  # different ones

_WORDS = DESCRIPTOR.itemsize // 4


def _offset(name: str) -> int:
    return int(DESCRIPTOR.fields[name][1])  # type: ignore[index]


_STATE, _GENERATION = _offset("state") // 4, _offset("generation") // 4
_SIMULATION, _ORDINAL = _offset("simulation"), _offset("ordinal")
_LEASE, _N_STEPS, _CHECKSUM = _offset("lease"), _offset("n_steps"), _offset("checksum")
_U64 = struct.Struct("<Q")
_U32 = struct.Struct("<I")
_IDENTITY = struct.Struct("<IIIIIII")  # lease, segment, n_steps, n_parts, row, checksum, role


class Descriptors:
    """One row a slot; each method writes what makes the row valid last."""

    def __init__(self, rows: npt.NDArray[Any]) -> None:
        self._memory = rows.view("u1").data.cast("B")
        self._words = rows.view("u1").data.cast("B").cast("I")
        self._columns = {name: rows[name] for name in DESCRIPTOR.names or ()}

    def begin(
        self, slot: int, simulation: int, segment: int, lease: int, role: int, n_parts: int,
        row: int,
    ) -> None:  # fmt: skip
        """What stood there belongs to nobody from the first write on; ends before OPEN."""
        at, words = slot * DESCRIPTOR.itemsize, slot * _WORDS
        self._words[words + _STATE] = FREE
        self._words[words + _GENERATION] |= 1  # odd: readers keep away
        _U64.pack_into(self._memory, at + _SIMULATION, simulation)
        _IDENTITY.pack_into(
            self._memory, at + _LEASE, lease, segment, 0, n_parts, row, 0, role
        )  # fmt: skip

    def begin_all(
        self, slots: Slots, simulation: int, segments: Sequence[int], lease: int, role: int,
        n_parts: int, row: int,
    ) -> None:  # fmt: skip
        """As `begin`, for a segment each."""
        columns = self._columns
        columns["state"][slots] = FREE
        columns["generation"][slots] |= 1
        columns["simulation"][slots] = simulation
        columns["segment"][slots] = segments
        for name, value in (("lease", lease), ("n_steps", 0), ("n_parts", n_parts), ("row", row),
                            ("checksum", 0), ("role", role)):  # fmt: skip
            columns[name][slots] = value

    def open(self, slots: int | Slots) -> None:
        """The rest of the slots is cleared: parts may come."""
        self._columns["state"][slots] = OPEN

    def commit(self, slot: int, n_steps: int, ordinal: int, checksum: int) -> None:
        """The segment is admitted; readers see it whole or not at all."""
        at, words = slot * DESCRIPTOR.itemsize, slot * _WORDS
        _U32.pack_into(self._memory, at + _N_STEPS, n_steps)
        _U64.pack_into(self._memory, at + _ORDINAL, ordinal)
        _U32.pack_into(self._memory, at + _CHECKSUM, checksum)
        self._words[words + _GENERATION] = (self._words[words + _GENERATION] + 1) & 0xFFFFFFFF
        self._words[words + _STATE] = COMMITTED

    def commit_all(
        self, slots: Slots, n_steps: int, ordinals: Sequence[int], checksums: Sequence[int]
    ) -> None:
        """As `commit`, for segments of as many steps each."""
        columns = self._columns
        columns["n_steps"][slots] = n_steps
        columns["ordinal"][slots] = ordinals
        columns["checksum"][slots] = checksums
        columns["generation"][slots] += 1  # uint32: it begins anew at its end
        columns["state"][slots] = COMMITTED

    def change(self, slot: int) -> None:
        """Readers keep away until the commit."""
        self._words[slot * _WORDS + _GENERATION] |= 1

    def free(self, slot: int) -> None:
        """The slot holds nothing."""
        words = slot * _WORDS
        generation = self._words[words + _GENERATION]
        self._words[words + _GENERATION] = (generation + generation % 2) & 0xFFFFFFFF
        self._words[words + _STATE] = FREE
