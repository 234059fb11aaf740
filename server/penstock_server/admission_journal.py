"""The journal of a shard's admissions, for those who want every step accounted for.

One line for each admitted segment, on disk, without its fields: a CRC-32 stands for them. Written
by the shard when the campaign sets [audit] checksums. Ordinals count from 1 in one slab's life.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# ordinal, simulation, lease, segment, steps, checksum
JOURNAL = struct.Struct("<QQIIII")
_NAMES = ("ordinal", "simulation", "lease", "segment", "n_steps", "checksum")
LINE = np.dtype([(name, f"<u{size}") for name, size in zip(_NAMES, (8, 8, 4, 4, 4, 4))])


class AdmissionJournal:
    """Lines follow from descriptors of slots; without a path nothing is written."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("ab", buffering=0) if path is not None else None

    def write(self, row: npt.NDArray[Any] | np.void) -> None:
        """The line of one committed slot."""
        if self._file is not None:
            line = JOURNAL.pack(*(int(row[name]) for name in _NAMES))
            while line:  # a disk that fills up takes a part and refuses the rest
                line = line[self._file.write(line) :]

    def write_all(self, rows: npt.NDArray[Any], slots: Iterable[int]) -> None:
        """The lines of committed slots out of all rows."""
        if self._file is not None:
            for slot in slots:
                self.write(rows[slot])

    def catch_up(self, rows: Iterable[np.void]) -> None:
        """Lines of admissions whose receiver died before it wrote them; rows by ordinal."""
        if self._file is None:
            return
        whole = self._file.tell() // JOURNAL.size * JOURNAL.size
        self._file.truncate(whole)
        last = 0
        if whole:
            with Path(self._file.name).open("rb") as lines:
                lines.seek(whole - JOURNAL.size)
                last = JOURNAL.unpack(lines.read())[0]
        for row in rows:
            if int(row["ordinal"]) > last:
                self.write(row)


def begin_life(path: Path) -> None:
    """A new slab for an old journal: an empty line parts its admissions from those before.

    Without it a receiver that died before its first line would take the last one for its own.
    """
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // JOURNAL.size * JOURNAL.size)
            if file.seek(0, 2):
                file.write(bytes(JOURNAL.size))


def read_lines(path: Path) -> npt.NDArray[Any]:
    """The line of each admission, rows of LINE; the last one may have been half written."""
    content = path.read_bytes()
    rows = np.frombuffer(content, LINE, count=len(content) // LINE.itemsize)
    return rows[rows["ordinal"] > 0]
