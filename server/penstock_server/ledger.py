"""The shard's truth about steps: which segments were admitted, drawn and settled, exactly once.

A file of 256-byte chunks in the slab's folder, one chunk for 512 consecutive segments of one
simulation; three bits a segment. Written by the receiver only, before it acknowledges; a restarted
receiver rebuilds its dictionaries by a scan.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SEGMENTS = 512
CHUNK = np.dtype(
    [
        ("used", "<u8"),  # 1 once the rest of the head is written
        ("simulation", "<u8"),
        ("first_segment", "<u8"),
        ("n_steps", "<u8"),  # of the simulation, + 1; 0 while unknown; in its first chunk
        ("n_segments", "<u8"),  # of these the shard gets so many, + 1
        ("lease", "<u4"),  # in force, with what was granted to it: a restarted receiver honours it
        ("n_parts", "<u2"),
        ("covered", "<u2"),  # the layouts of all parts were whole: their check number; else 0
        ("granted", "<u8"),
        ("position", "<u4"),
        ("stride", "<u4"),
        ("admitted", "u1", SEGMENTS // 8),
        ("drawn", "u1", SEGMENTS // 8),
        ("settled", "u1", SEGMENTS // 8),
    ]
)
assert CHUNK.itemsize == 256
_GROWTH = 1024

# What the ledger says of one admitted segment, for the audit.
ADMITTED = np.dtype(
    [
        ("simulation", "<u8"),
        ("segment", "<u4"),
        ("drawn", "?"),
        ("settled", "?"),
        ("n_steps", "<i8"),  # of the simulation; -1 while unknown
    ]
)
_AT = {name: int(CHUNK.fields[name][1]) for name in ("admitted", "drawn", "settled")}  # type: ignore[index]


class Ledger:
    """Bits by (simulation, segment); a reader sees it as it stands when it is opened."""

    def __init__(self, path: Path, writable: bool = True) -> None:
        self._path = path
        self._writable = writable
        self._chunks: npt.NDArray[Any] = np.empty(0, CHUNK)
        self._memory = memoryview(b"")  # the chunks again: a bit costs a third of numpy's way
        self._rows: dict[tuple[int, int], int] = {}
        self._blocks: dict[int, list[int]] = {}  # simulation -> blocks that have a chunk
        self._admitted: dict[int, int] = {}
        self._used = 0
        self._copied: dict[int, npt.NDArray[Any]] = {}  # batch -> drawn bits of its copy
        if writable and not path.exists():
            path.touch(mode=0o600)
        standing = path.stat().st_size // CHUNK.itemsize
        self._map(max(_GROWTH, standing) if writable else standing)
        self._scan()

    def admitted(self, simulation: int, segment: int) -> bool:
        return self._get("admitted", simulation, segment)

    def none_admitted(self, simulation: int, first: int, last: int) -> bool:
        """Whether no segment from first to last is."""
        for block in range(first // SEGMENTS, last // SEGMENTS + 1):
            row = self._rows.get((simulation, block))
            if row is not None:
                begin = block * SEGMENTS
                bits = np.unpackbits(self._chunks["admitted"][row], bitorder="little")
                if bits[max(0, first - begin) : last - begin + 1].any():
                    return False
        return True

    def settled(self, simulation: int, segment: int) -> bool:
        return self._get("settled", simulation, segment)

    def n_admitted(self, simulation: int) -> int:
        """How many segments of the simulation were admitted here."""
        return self._admitted.get(simulation, 0)

    def simulations(self) -> Iterator[int]:
        """Every simulation of which this shard has heard."""
        return iter(sorted(self._blocks))

    def admit(self, simulation: int, segment: int) -> bool:
        """Sets the admitted bit; False when it was set already."""
        if self._set("admitted", simulation, segment):
            self._admitted[simulation] = self._admitted.get(simulation, 0) + 1
            return True
        return False

    def admit_all(self, simulation: int, segments: Sequence[int]) -> None:
        """As `admit`, for different segments of which none is admitted."""
        blocks, bits = np.divmod(np.array(segments), SEGMENTS)
        for block in np.unique(blocks).tolist():
            marks = np.zeros(SEGMENTS, bool)
            marks[bits[blocks == block]] = True
            row = self._row(simulation, block)
            self._chunks["admitted"][row] |= np.packbits(marks, bitorder="little")
        self._admitted[simulation] = self._admitted.get(simulation, 0) + len(segments)

    def draw(self, simulation: int, segment: int) -> bool:
        """Sets the drawn bit: every sample of the segment was trained on before a snapshot."""
        return self._set("drawn", simulation, segment)

    def settle(self, batch: int) -> None:
        """What the copy of this batch has as drawn is settled: its checkpoint is durable."""
        copied = self._copied.get(batch)
        if copied is not None:
            self._chunks["settled"][: len(copied)] = copied
            self._copied = {other: bits for other, bits in self._copied.items() if other > batch}

    def end(self, simulation: int, n_steps: int, n_segments: int) -> None:
        """Notes the number of steps of a simulation, and of its segments in this shard."""
        row = self._row(simulation, 0)
        self._chunks["n_segments"][row] = n_segments + 1
        self._chunks["n_steps"][row] = n_steps + 1

    def reopen(self, simulation: int) -> None:
        """Forgets the number of steps: the attempt that said it was refused."""
        row = self._rows.get((simulation, 0))
        if row is not None:
            self._chunks["n_steps"][row] = 0

    def n_segments(self, simulation: int) -> int | None:
        """How many segments belong to this shard, or None while the simulation has not ended."""
        if self.n_steps(simulation) is None:
            return None
        return int(self._chunks["n_segments"][self._rows[simulation, 0]]) - 1

    def open(self, simulation: int, lease: int, n_parts: int, position: int, stride: int) -> None:
        """Notes the lease in force; nothing is granted to it yet."""
        row = self._row(simulation, 0)
        self._chunks["granted"][row] = 0
        self._chunks["n_parts"][row], self._chunks["covered"][row] = n_parts, 0
        self._chunks["position"][row], self._chunks["stride"][row] = position, stride
        self._chunks["lease"][row] = lease

    def grant(self, simulation: int, granted: int) -> None:
        """Notes how many segments the lease in force may send; before the client hears of it."""
        self._chunks["granted"][self._rows[simulation, 0]] = granted

    def cover(self, simulation: int, number: int) -> None:
        """Notes that the parts of the lease in force cover every field exactly once.

        number: of their layouts, `plans.check_number`.
        """
        self._chunks["covered"][self._rows[simulation, 0]] = number

    def covered(self, simulation: int) -> int:
        """What `cover` was given for the lease in force, or 0."""
        row = self._rows.get((simulation, 0))
        return 0 if row is None else int(self._chunks["covered"][row])

    def close(self, simulation: int) -> None:
        """The lease has no slots reserved any more."""
        row = self._rows.get((simulation, 0))
        if row is not None:
            self._chunks["lease"][row] = 0

    def leases(self) -> list[tuple[int, int, int, int, int, int]]:
        """(simulation, lease, n_parts, granted, position, stride) of every lease in force."""
        used = self._chunks[: self._used]
        names = ("simulation", "lease", "n_parts", "granted", "position", "stride")
        rows = used[used["lease"] > 0]
        return [tuple(int(row[name]) for name in names) for row in rows]  # type: ignore[misc]

    def n_steps(self, simulation: int) -> int | None:
        """The number of steps, or None while the simulation has not ended."""
        row = self._rows.get((simulation, 0))
        stored = 0 if row is None else int(self._chunks["n_steps"][row])
        return stored - 1 if stored else None

    def segments(self, simulation: int, which: str = "admitted") -> list[int]:
        """The segments whose bit (`admitted`, `drawn`, `settled`) is set, ascending."""
        found: list[int] = []
        for block in sorted(self._blocks.get(simulation, ())):
            bits = np.unpackbits(self._chunks[which][self._rows[simulation, block]],
                                 bitorder="little")  # fmt: skip
            found.extend(int(block * SEGMENTS + i) for i in np.flatnonzero(bits))
        return found

    def totals(self) -> dict[str, int]:
        """How many segments are admitted, drawn and settled."""
        used = self._chunks[: self._used]
        names = ("admitted", "drawn", "settled")
        return {name: int(np.unpackbits(used[name]).sum()) for name in names}

    def table(self) -> npt.NDArray[Any]:
        """Every admitted segment, a row of ADMITTED each."""
        used = self._chunks[: self._used]
        bits = {
            name: np.unpackbits(used[name], axis=1, bitorder="little").astype(bool)
            for name in ("admitted", "drawn", "settled")
        }  # (chunks, SEGMENTS)
        chunk, offset = np.nonzero(bits["admitted"])
        rows = np.empty(len(chunk), ADMITTED)
        rows["simulation"] = used["simulation"][chunk]
        rows["segment"] = used["first_segment"][chunk] + offset.astype(np.uint64)
        rows["drawn"], rows["settled"] = (
            bits["drawn"][chunk, offset],
            bits["settled"][chunk, offset],
        )
        n_steps = {sim: self.n_steps(sim) for sim in self._blocks}
        known, place = np.unique(rows["simulation"], return_inverse=True)
        each = [-1 if (n := n_steps[int(sim)]) is None else n for sim in known]
        rows["n_steps"] = np.array(each, np.int64)[place]
        return rows

    def copy(
        self, path: Path, batch: int | None = None, trained: Iterable[tuple[int, int]] = ()
    ) -> None:
        """Writes the ledger to a file of its own; for the checkpoint of a batch, with its number.

        trained: (simulation, segment) that are drawn in the copy and not yet here.
        """
        chunks = self._chunks[: self._used].copy()
        for simulation, segment in trained:
            at, bit = divmod(segment % SEGMENTS, 8)
            chunks["drawn"][self._rows[simulation, segment // SEGMENTS], at] |= 1 << bit
        if batch is not None:
            # One before it may still be written; ranks went back from any later one.
            before = [other for other in sorted(self._copied) if other < batch][-1:]
            self._copied = {other: self._copied[other] for other in before}
            self._copied[batch] = chunks["drawn"].copy()
        temporary = path.with_suffix(".part")
        with temporary.open("wb") as file:
            file.write(chunks.tobytes())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    @classmethod
    def resume(cls, checkpoint: Path, path: Path) -> Ledger:
        """Begins from a checkpoint's copy: what was drawn by then is settled, the rest is gone."""
        shutil.copyfile(checkpoint, path)
        ledger = cls(path)
        used = ledger._chunks[: ledger._used]
        used["admitted"] = used["drawn"]
        used["settled"] = used["drawn"]
        used["lease"] = 0
        ledger._admitted.clear()
        ledger._blocks.clear()
        ledger._scan()
        return ledger

    def _get(self, which: str, simulation: int, segment: int) -> bool:
        row = self._rows.get((simulation, segment // SEGMENTS))
        if row is None:
            return False
        bit = segment % SEGMENTS
        return bool(self._memory[_AT[which] + row * CHUNK.itemsize + (bit >> 3)] >> (bit & 7) & 1)

    def _set(self, which: str, simulation: int, segment: int) -> bool:
        row = self._row(simulation, segment // SEGMENTS)
        bit = segment % SEGMENTS
        at, mask = _AT[which] + row * CHUNK.itemsize + (bit >> 3), 1 << (bit & 7)
        if self._memory[at] & mask:
            return False
        self._memory[at] |= mask
        return True

    def _row(self, simulation: int, block: int) -> int:
        row = self._rows.get((simulation, block))
        if row is None:
            if self._used == len(self._chunks):
                self._map(len(self._chunks) + _GROWTH)
            row = self._used
            chunk = self._chunks[row]
            chunk["simulation"], chunk["first_segment"] = simulation, block * SEGMENTS
            chunk["used"] = 1
            self._used += 1
            self._note(simulation, block, row)
        return row

    def _note(self, simulation: int, block: int, row: int) -> None:
        self._rows[simulation, block] = row
        self._blocks.setdefault(simulation, []).append(block)

    def _scan(self) -> None:
        self._used = int(np.count_nonzero(self._chunks["used"]))
        for row in range(self._used):
            simulation = int(self._chunks["simulation"][row])
            block = int(self._chunks["first_segment"][row]) // SEGMENTS
            self._note(simulation, block, row)
            n = int(np.unpackbits(self._chunks["admitted"][row]).sum())
            self._admitted[simulation] = self._admitted.get(simulation, 0) + n

    def _map(self, n_chunks: int) -> None:
        if n_chunks == 0:  # a copy of a ledger in which nothing stands yet
            self._chunks = np.empty(0, CHUNK)
            return
        n_bytes = n_chunks * CHUNK.itemsize
        if n_bytes == 0:  # the copy of a shard that nothing had reached
            return
        descriptor = os.open(self._path, os.O_RDWR if self._writable else os.O_RDONLY)
        access = mmap.PROT_READ | (mmap.PROT_WRITE if self._writable else 0)
        try:
            if self._writable:
                os.posix_fallocate(descriptor, 0, n_bytes)
            memory = mmap.mmap(descriptor, n_bytes, mmap.MAP_SHARED, access)
        finally:
            os.close(descriptor)
        self._chunks = np.frombuffer(memory, dtype=CHUNK)
        self._memory = memoryview(memory)


def keep_ledgers(scratch: Path, folder: Path) -> None:
    """Copies the ledgers of shards whose receivers have ended out of memory, for the audit."""
    for path in sorted(scratch.glob("shard-*/ledger")):
        folder.mkdir(exist_ok=True)
        name = path.parent.name.removeprefix("shard-")
        Ledger(path, writable=False).copy(folder / f"ledger-{name}")


def settled_segments(ledgers: Path) -> dict[int, list[tuple[int, int]]]:
    """For each simulation the ranges of segments that a checkpoint's ledgers hold."""
    segments: dict[int, set[int]] = {}
    for path in sorted(ledgers.glob("ledger-*")):
        ledger = Ledger(path, writable=False)
        for simulation in ledger.simulations():
            segments.setdefault(simulation, set()).update(ledger.segments(simulation, "drawn"))
    return {simulation: _ranges(sorted(found)) for simulation, found in segments.items() if found}


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    if not numbers:
        return []
    cuts = np.flatnonzero(np.diff(numbers) > 1)
    starts = [0, *(int(cut) + 1 for cut in cuts)]
    ends = [*(int(cut) for cut in cuts), len(numbers) - 1]
    return [(numbers[a], numbers[b]) for a, b in zip(starts, ends, strict=True)]
