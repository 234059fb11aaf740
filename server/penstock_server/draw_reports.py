"""A rank's draws on their way to its receiver: collected, sent, kept until they are noted.

A receiver that is killed may have heard of a draw and not noted it. The slab outlives it and says
up to which report everything is marked as drawn. A later report is said again to the next receiver;
saying it twice changes nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

import numpy as np

from penstock_server.feed_messages import Draw, Report, pack_report
from penstock_server.gathering import Promise


class _Sent(NamedTuple):
    number: int
    frames: list[bytes]
    n_first: int  # first draws in it


class DrawReports:
    """Of one rank. Doesn't send: what is to be sent comes as frames."""

    def __init__(self, number: int) -> None:
        """number: of the reports, above those of any rank before this one."""
        self._number = number
        self._lock = threading.Lock()  # the rank adds, its thread packs
        self.waiting: list[tuple[Promise, int]] = []  # taken as batch; the receiver wasn't told
        self._n_first = 0  # first draws of these
        self._sent: deque[_Sent] = deque()

    def add(self, promise: Promise, batch: int) -> None:
        """The promise was taken as batch number `batch` of the training run."""
        with self._lock:
            self.waiting.append((promise, batch))
            self._n_first += promise.n_first

    def unnoted_first(self, noted: int) -> int:
        """First draws in none of the reports up to number `noted`, as far as anybody was told."""
        n_first = self._n_first
        if not self._sent:  # after it was read: what is packed meanwhile stands there before
            return n_first
        with self._lock:
            self._forget(noted)
            return self._n_first + sum(sent.n_first for sent in self._sent)

    def pack(self) -> list[bytes]:
        """The message about all that wait."""
        with self._lock:
            waiting, self.waiting = self.waiting, []
            self._number += 1
            after = self._sent[-1].number if self._sent else 0
            report = Report(self._number, after, [_draw(*each) for each in waiting])
            frames = pack_report(report)
            self._sent.append(_Sent(self._number, frames, self._n_first))
            self._n_first = 0
        return frames

    def again(self, noted: int) -> list[list[bytes]]:
        """The messages that were sent after report number `noted`, in order."""
        with self._lock:
            self._forget(noted)
            return [sent.frames for sent in self._sent]

    def clear(self) -> None:
        """The ranks go back: draws that are not noted never were."""
        with self._lock:
            self.waiting, self._n_first = [], 0
            self._sent.clear()

    def _forget(self, noted: int) -> None:
        while self._sent and self._sent[0].number <= noted:
            self._sent.popleft()


def _draw(promise: Promise, batch: int) -> Draw:
    generations = np.frombuffer(promise.generations, np.uint32)
    return Draw(promise.epoch, promise.number, batch, promise.samples, generations)
