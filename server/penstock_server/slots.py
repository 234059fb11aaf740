"""The slots of a shard: taken for a segment, committed, given back; owned by the shard.

Descriptors are written in an order that survives a kill at any line: FREE, identity, OPEN; then
the payload and the part bits; then COMMITTED, the ledger's bit, the journal's line. `scan` finds
after a restart what was committed.
"""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from penstock_server.admission_journal import AdmissionJournal
from penstock_server.descriptors import Descriptors
from penstock_server.input_rows import InputRows
from penstock_server.ledger import Ledger
from penstock_server.reservoir import Reservoir
from penstock_server.slab import COMMITTED, FREE, OPEN, Slab
from penstock_server.streams import OpenSlot, Stream


class Slots:
    """Keeps slab, ledger, reservoir, input rows and journal in step."""

    def __init__(
        self,
        slab: Slab,
        ledger: Ledger,
        reservoir: Reservoir,
        counters: Counter[str],
        checksums: bool,
        journal: Path | None,
    ) -> None:
        self.rows = InputRows(slab.spec.n_rows if slab.spec.inputs else 0)
        self._slab, self._ledger, self._reservoir = slab, ledger, reservoir
        self._counters, self._checksums = counters, checksums
        self._journal = AdmissionJournal(journal)
        self._committed: dict[tuple[int, int], int] = {}  # (simulation, segment) -> slot
        self._ordinal = 0
        self._descriptors = Descriptors(slab.descriptor)
        self._words = slab.parts.shape[-1]
        self._bits = slab.parts.reshape(-1).data  # a memoryview: scalars at a third of the cost

    def find(self, simulation: int, segment: int) -> int | None:
        """Where a committed segment stands, if it still does."""
        return self._committed.get((simulation, segment))

    def windows(self, n_steps: int) -> int:
        """Samples in a slot that holds so many steps."""
        return max(0, n_steps - self._slab.spec.span + 1)

    def take(self, stream: Stream, segment: int) -> OpenSlot:
        """A slot for a segment that begins to come; one has been kept for it."""
        slot = self._begin(stream, segment)
        self._clear(stream, slot)
        self._descriptors.open(slot)
        return OpenSlot(slot, [0] * self._slab.spec.segment_steps)

    def take_all(self, stream: Stream, segments: Sequence[int]) -> list[int]:
        """As `take`, for segments of which each is whole before anything else happens."""
        slots = [self._acquire(stream) for _ in segments]
        there = np.array(slots)
        self._descriptors.begin_all(
            there, stream.simulation, segments, stream.lease, stream.role, stream.n_parts,
            stream.row or 0,
        )  # fmt: skip
        self._clear(stream, there)
        self._descriptors.open(there)
        return slots

    def take_over(self, stream: Stream, slot: int) -> None:
        """A slot that was open before a restart; what is of another lease is given back."""
        row = self._slab.descriptor[slot]
        if int(row["lease"]) != stream.lease or int(row["n_parts"]) != stream.n_parts:
            self.free(slot)
            return
        self._descriptors.change(slot)  # it may have died at the last moment of an admission
        words = self._slab.parts[slot]
        bits = [sum(int(w) << (64 * i) for i, w in enumerate(step)) for step in words]
        received = sum(bin(b).count("1") for b in bits)
        stream.open[int(row["segment"])] = OpenSlot(slot, bits, received)

    def mark(self, row: int, part: int) -> None:
        """A part of a step stands in its slot; row = slot * segment_steps + step."""
        self._bits[row * self._words + (part >> 6)] |= 1 << (part & 63)

    def commit(self, stream: Stream, segment: int, steps: int) -> int:
        """Admits a complete segment of so many steps; returns its ordinal."""
        return self._commit(stream, segment, stream.open.pop(segment).slot, steps)

    def commit_all(
        self, stream: Stream, segments: Sequence[int], slots: Sequence[int]
    ) -> list[int]:
        """As `commit`, for what `take_all` gave: single steps of a simulation in one part."""
        there, n = np.array(slots), len(slots)
        self._slab.parts[there, 0, 0] = 1
        ordinals = range(self._ordinal + 1, self._ordinal + n + 1)
        self._ordinal += n
        checksums = [self._checksum(s, 1) for s in slots] if self._checksums else [0] * n
        self._descriptors.commit_all(there, 1, ordinals, checksums)
        self._ledger.admit_all(stream.simulation, segments)
        if stream.row is not None:
            self.rows.settle(stream.row)
        self._journal.write_all(self._slab.descriptor, slots)
        self._committed.update(zip(((stream.simulation, s) for s in segments), slots))
        return list(ordinals)

    def free(self, slot: int) -> None:
        """Gives a slot back that was open."""
        self._descriptors.free(slot)
        self._unuse_row(slot)
        self._reservoir.release(slot)

    def scan(self) -> None:
        """Rebuilds the books from the descriptors, after a restart."""
        descriptor = self._slab.descriptor
        held = np.flatnonzero(descriptor["state"] == COMMITTED)
        held = held[np.argsort(descriptor["ordinal"][held])]
        newest = int(descriptor["ordinal"][held].max(initial=0))
        self._ordinal = max(newest, self._ledger.totals()["admitted"])
        taken = {int(slot) for slot in np.flatnonzero(descriptor["state"] != FREE)}
        n_slots = self._slab.spec.n_slots
        self._reservoir.free = [slot for slot in reversed(range(n_slots)) if slot not in taken]
        for slot in sorted((int(s) for s in held), key=self._last_draw):
            row = descriptor[slot]
            simulation, segment = int(row["simulation"]), int(row["segment"])
            self._ledger.admit(simulation, segment)  # died between COMMITTED and the ledger bit
            self._committed[simulation, segment] = slot
            if self._slab.spec.inputs:
                self.rows.use(simulation, int(row["row"]))
                self.rows.settle(int(row["row"]))
            self._reservoir.put(slot, self.windows(int(row["n_steps"])), int(row["ordinal"]))
        self._journal.catch_up(descriptor[held])

    def opened(self) -> dict[int, list[int]]:
        """The slots that were open when a receiver died, by simulation."""
        descriptor = self._slab.descriptor
        found: dict[int, list[int]] = {}
        for slot in map(int, np.flatnonzero(descriptor["state"] == OPEN)):
            simulation = int(descriptor["simulation"][slot])
            found.setdefault(simulation, []).append(slot)
            if self._slab.spec.inputs:
                self.rows.use(simulation, int(descriptor["row"][slot]))
        return found

    def _begin(self, stream: Stream, segment: int) -> int:
        """A slot that nobody reads any more, and whose segment comes; one has been kept for it."""
        slot = self._acquire(stream)
        self._descriptors.begin(
            slot, stream.simulation, segment, stream.lease, stream.role, stream.n_parts,
            stream.row or 0,
        )  # fmt: skip
        return slot

    def _acquire(self, stream: Stream) -> int:
        """A slot whose content nobody needs; its descriptor still names it."""
        slot, evicted = self._reservoir.acquire()
        if evicted:
            row = self._slab.descriptor[slot]
            self._counters["evicted"] += 1
            self._committed.pop((int(row["simulation"]), int(row["segment"])), None)
            self._unuse_row(slot)
        if stream.row is not None:
            self.rows.use(stream.simulation, stream.row)
        return slot

    def _clear(self, stream: Stream, slots: int | npt.NDArray[np.int64]) -> None:
        self._slab.parts[slots] = 0
        self._slab.drawn[slots] = 0
        self._slab.t[slots] = np.nan
        self._slab.parameters[slots, : len(stream.values)] = stream.values

    def _commit(self, stream: Stream, segment: int, slot: int, steps: int) -> int:
        self._ordinal += 1
        checksum = self._checksum(slot, steps) if self._checksums else 0
        self._descriptors.commit(slot, steps, self._ordinal, checksum)
        self._ledger.admit(stream.simulation, segment)
        if stream.row is not None:
            self.rows.settle(stream.row)
        self._journal.write_all(self._slab.descriptor, [slot])
        self._committed[stream.simulation, segment] = slot
        return self._ordinal

    def _last_draw(self, slot: int) -> int:
        """Slots in the order in which snapshots free them; those with unseen samples at the end."""
        n_windows = self.windows(int(self._slab.descriptor["n_steps"][slot]))
        drawn = self._slab.drawn[slot, :n_windows]
        return int(drawn.max(initial=0)) if drawn.all() else sys.maxsize

    def _unuse_row(self, slot: int) -> None:
        if self._slab.spec.inputs:
            self.rows.unuse(int(self._slab.descriptor["row"][slot]))

    def _checksum(self, slot: int, steps: int) -> int:
        crc = 0
        for name in self._slab.spec.fields:
            crc = zlib.crc32(self._slab.fields[name][slot, :steps].tobytes(), crc)
        return crc
