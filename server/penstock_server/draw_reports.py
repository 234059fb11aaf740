"""A rank's draws on their way to its receiver: collected, sent, kept until the slab shows them.

A receiver that is killed may have heard of a draw and not noted it. The slab outlives it and says
what was noted, so what it doesn't show is said again to the next one; saying it twice changes
nothing.
"""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from penstock_server.feed_messages import Draw, Ids, drawn_ids, pack_draws
from penstock_server.gathering import Promise, SlotTable
from penstock_server.slab import Slab

KEPT = 16  # reports, before it is worth looking for them in the slab


class DrawReports:
    """Of one rank. Doesn't send: what is to be sent comes as frames."""

    def __init__(self, slab: Slab) -> None:
        self._drawn: Ids = slab.drawn.reshape(-1)
        self._table = SlotTable(slab)
        self._windows = slab.spec.windows
        self._lock = threading.Lock()  # the rank adds, its thread packs
        self._waiting: list[tuple[Promise, int]] = []  # taken as batch; the receiver wasn't told
        self._n_first = 0  # first draws of these
        self._sent: deque[tuple[list[bytes], int]] = deque()  # with the first draws in it

    @property
    def n_waiting(self) -> int:
        """Batches that the receiver was not told of."""
        return len(self._waiting)

    def add(self, promise: Promise, batch: int) -> None:
        """The promise was taken as batch number `batch` of the training run."""
        with self._lock:
            self._waiting.append((promise, batch))
            self._n_first += promise.n_first

    def unshown_first(self) -> int:
        """First draws that the slab doesn't show yet, as far as anybody was told of them."""
        n_first = self._n_first
        if not self._sent:  # after it was read: what is packed meanwhile stands there before
            return n_first
        self.look()
        with self._lock:
            return self._n_first + sum(n_first for _, n_first in self._sent)

    def pack(self) -> list[bytes]:
        """The message about all that wait."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            frames = pack_draws([_draw(promise, batch) for promise, batch in waiting])
            self._sent.append((frames, self._n_first))
            self._n_first = 0
        if len(self._sent) > KEPT:
            self.look()
        return frames

    def look(self) -> bool:
        """Forgets what the slab shows; whether that is everything that was sent."""
        with self._lock:
            while self._sent and self._shown(self._sent[0][0][1]):
                self._sent.popleft()
            return not self._sent

    def again(self) -> list[list[bytes]]:
        """The messages that were sent and that the slab doesn't show yet, in order."""
        self.look()
        with self._lock:
            return [frames for frames, _ in self._sent]

    def clear(self) -> None:
        """The ranks go back: draws that are not noted never were."""
        with self._lock:
            self._waiting, self._n_first = [], 0
            self._sent.clear()

    def _shown(self, frame: bytes) -> bool:
        """Whether each sample is marked as drawn, or its slot was given up after it was."""
        samples, promised = drawn_ids(frame)
        now = self._table.generations(self._table.places(samples // self._windows))
        return bool(((self._drawn[samples] != 0) | (now != promised)).all())


def _draw(promise: Promise, batch: int) -> Draw:
    generations = np.frombuffer(promise.generations, np.uint32)
    return Draw(promise.epoch, promise.number, batch, promise.samples, generations)
