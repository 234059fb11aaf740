"""Memory in large pages, for what is on its way to a shard over TCP.

A page that is touched for the first time costs the system a trap and its zeros: in pages of 4 kB a
microsecond or two each, several on a virtual machine, which for a step is more than all else that
is done with it. A window fills slowly where many programs share a machine, so this would go on for
thousands of steps. Linux's large pages cost a fifth of it, and later the processor finds their
places sooner. Owned by the link.
"""

from __future__ import annotations

import contextlib
import mmap

import numpy as np

LEAST_BYTES = 1 << 16  # below, malloc has memory that was used before
_PIECE_BYTES = 1 << 24  # asked for at once; only pages that are written to are there
_ALIGNED = 64


class Pages:
    """Hands out memory one after the other; `Buffers` uses again what comes back."""

    def __init__(self) -> None:
        self._piece = np.empty(0, np.uint8)
        self._used = 0

    def allocate(self, n_bytes: int) -> np.ndarray | None:
        """Bytes that nobody else has, until the array is gone; None where they are few."""
        if n_bytes < LEAST_BYTES:
            return None
        if self._used + n_bytes > len(self._piece):
            self._piece, self._used = _large_pages(max(n_bytes, _PIECE_BYTES)), 0
        at, end = self._used, self._used + n_bytes
        self._used = end + -end % _ALIGNED
        return self._piece[at:end]


def _large_pages(n_bytes: int) -> np.ndarray:
    """Of the usual size where the system has no others."""
    memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)
