"""Memory that a receiver on the same host may read, so that fields need not pass through ZeroMQ.

A sealed memfd: it cannot shrink under a reader, and it is gone with this process however that ends.
The receiver finds it at /proc/PID/fd/FD and knows it by the token at its beginning; in another
container or on another host it doesn't, and everything goes over TCP. Owned by the link.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets

import numpy as np

from penstock import wire

_TOKEN_BYTES = 32
_ALIGNED = 64
_FIRST = 4096  # the first page has the token


class Arena:
    """Hands out memory from its beginning to its end; `Buffers` uses again what comes back."""

    def __init__(self, n_bytes: int) -> None:
        """Raises OSError where there is no such memory."""
        size = _FIRST + n_bytes  # of which only pages that are written to are there
        self._file = os.memfd_create(wire.ARENA, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._file, size)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, seals)
            memory = mmap.mmap(self._file, size)
        except (OSError, ValueError):
            os.close(self._file)
            raise
        token = secrets.token_bytes(_TOKEN_BYTES)
        memory[:_TOKEN_BYTES] = token
        self.offer = wire.OFFER.pack(os.getpid(), self._file, 0, size, token)
        self._bytes = np.frombuffer(memory, np.uint8)
        self._begin = address(self._bytes)
        self._used = _FIRST

    def allocate(self, n_bytes: int) -> np.ndarray | None:
        """Bytes that nobody else has, or None when all of them are out."""
        at, end = self._used, self._used + n_bytes
        if end > len(self._bytes):
            return None
        self._used = end + -end % _ALIGNED
        return self._bytes[at:end]

    def offset(self, array: np.ndarray) -> int | None:
        """Where a contiguous array begins in here; None if it is somewhere else."""
        at = address(array) - self._begin
        return at if 0 <= at <= len(self._bytes) - array.nbytes else None

    def close(self) -> None:
        """No receiver can find it any more; may be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def make_arena(n_bytes: int) -> Arena | None:
    """None where the system has no sealed memory: then everything goes over TCP."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return Arena(n_bytes)
    return None


def address(array: np.ndarray) -> int:
    """Of its first value."""
    return int(array.__array_interface__["data"][0])
