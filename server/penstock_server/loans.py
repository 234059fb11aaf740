"""Memory of clients on this host, from which their fields are read without passing a socket.

A client offers a sealed memfd of its own (clients/penstock/arena.py) by numbers alone, never by a
path. It is taken only if it is what it says: such a memory, that cannot shrink while it is read,
with the token that came over the connection. Owned by the intake.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import mmap
import os
import struct
from pathlib import Path

from penstock.wire import ARENA, OFFER

GONE_S = 5.0
BUSY_GONE_S = 60.0  # while messages wait that may be of a process that is gone
_PLACE = struct.Struct("<Q")
_SEALS = fcntl.F_SEAL_SHRINK


class LoanError(ValueError):
    """A place outside of what was lent."""


class LoanOver(LoanError):
    """The process that lent the memory is gone, and the memory with it."""


class Loan:
    """The memory of one client process, mapped read-only."""

    def __init__(self, pid: int, memory: mmap.mmap, token: bytes) -> None:
        self.token = token  # of this memory alone
        self._pid, self._born = pid, _born(pid)
        self._memory: memoryview | None = memoryview(memory)
        self._gone_s: float | None = None  # when it was first seen that the process is gone

    def view(self, place: bytes | memoryview, n_bytes: int) -> memoryview:
        """The bytes of one row; raises LoanError when they are not all inside."""
        if self._memory is None:
            raise LoanOver("The process that this step came from is gone.")
        if len(place) != _PLACE.size:
            raise LoanError(f"A place in lent memory came as {len(place)} bytes; it has 8.")
        at = int(_PLACE.unpack(place)[0])
        if at + n_bytes > len(self._memory):
            raise LoanError(f"A place in lent memory is {at}; {len(self._memory)} bytes were lent.")
        return self._memory[at : at + n_bytes]

    def look(self, now_s: float, busy: bool) -> None:
        """Frees the memory a while after its process; busy: messages wait to be received.

        A process that was killed says no goodbye, and its last messages may come after its end.
        """
        if self._memory is None or (self._born is not None and _born(self._pid) == self._born):
            return
        if self._gone_s is None:
            self._gone_s = now_s
        elif now_s > self._gone_s + (BUSY_GONE_S if busy else GONE_S):
            self._memory = None


def accept(offer: bytes) -> Loan | None:
    """Maps what a client offers; None when it cannot be had here, or is something else."""
    if len(offer) != OFFER.size:
        return None
    pid, number, _, size, token = OFFER.unpack(offer)
    path = Path(f"/proc/{pid}/fd/{number}")
    with contextlib.suppress(OSError, ValueError, OverflowError):
        if not str(path.readlink()).startswith(f"/memfd:{ARENA}"):  # opening others may do things
            return None
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            sealed = fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS == _SEALS
            # Its blocks are huge pages: reading one that is gone is a bus error if none are free.
            huge = os.fstatvfs(file).f_bsize != mmap.PAGESIZE
            if huge or not sealed or os.fstat(file).st_size != size or size < len(token):
                return None
            memory = mmap.mmap(file, size, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(file)
        if hmac.compare_digest(memory[: len(token)], token):
            return Loan(pid, memory, token)
    return None


def _born(pid: int) -> int | None:
    """When a process began, in ticks of the machine: another may get its number after it."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] == "Z" else int(words[19])
