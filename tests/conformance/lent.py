"""Memory that the program under test lends, as a shard on its host reads it."""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from penstock import wire
from penstock.wire import Header

Frames = list[bytes]


class LentError(ValueError):
    """An offer or a place that WIRE.md does not allow."""


@dataclass
class Unread:
    """Values that are unacknowledged, and have to stay as they were."""

    place: int
    values: bytes


class Lent:
    """One client's, from a HELLO on."""

    def __init__(self, offer: bytes) -> None:
        """Raises LentError for what a real shard would not take."""
        if len(offer) != wire.OFFER.size:
            raise LentError(f"HELLO has a frame of {len(offer)} bytes; an offer has 56.")
        pid, number, zero, size, token = wire.OFFER.unpack(offer)
        path = Path(f"/proc/{pid}/fd/{number}")
        try:
            name = str(path.readlink())
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LentError(f"The memory that HELLO offers is not there: {error}.") from error
        try:
            sealed = fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
            if zero or not sealed or os.fstat(file).st_size != size:
                raise LentError("The memory that HELLO offers is not sealed, or has another size.")
            self._memory = mmap.mmap(file, size, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(file)
        if not name.startswith(f"/memfd:{wire.ARENA}") or self._memory[:32] != token:
            raise LentError("The memory that HELLO offers has another name, or another token.")

    def read(self, header: Header, payloads: Frames) -> tuple[Frames, list[Unread]]:
        """The payloads with the values of the rows that are lent; raises LentError."""
        rows = [entry.flags & wire.LENT for entry in header.fields]
        n_steps = header.step if header.kind == wire.Kind.BUNCH else 1
        first = len(payloads) - len(rows)
        found, unread = list(payloads), []
        for i, (entry, lent) in enumerate(zip(header.fields, rows), first):
            if not lent:
                continue
            if len(payloads[i]) != 8:
                raise LentError(f"A place came as {len(payloads[i])} bytes; it has 8.")
            place, n_bytes = int.from_bytes(payloads[i], "little"), n_steps * entry.n_bytes
            if place + n_bytes > len(self._memory):
                raise LentError(f"A place is {place} in {len(self._memory)} bytes that are lent.")
            found[i] = self._memory[place : place + n_bytes]
            unread.append(Unread(place, found[i]))
        return found, unread

    def changed(self, unread: list[Unread]) -> bool:
        """Whether any of them is not as it came."""
        return any(self._memory[u.place : u.place + len(u.values)] != u.values for u in unread)
