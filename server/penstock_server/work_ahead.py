"""A thread of the rank that gathers the next batch while the one before is computed.

It tends the line to the receiver as well: torch holds no interpreter lock while it computes.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

from penstock_server.gathering import Gatherer, Promise
from penstock_surrogates.batch import Batch


class WorkAhead:
    """One batch ahead of a `Gatherer`; promises that became void meanwhile are let go."""

    def __init__(self, gatherer: Gatherer, tend: Callable[[], None]) -> None:
        """tend: called after every batch and at every `turn`, in the thread."""
        self._gatherer, self._tend = gatherer, tend
        self._next: Promise | None = None
        self._closed = False
        self._asked: SimpleQueue[Promise | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Promise | None, Batch | Exception | None]] = SimpleQueue()
        self._thread = Thread(target=self._run, name="work-ahead", daemon=True)
        self._thread.start()

    def turn(self) -> None:
        """Tend soon; returns at once."""
        self._asked.put(None)

    def prepare(self, promise: Promise) -> None:
        """It will be the next to be gathered, unless it becomes void."""
        if promise is not self._next:
            self._next = promise
            self._asked.put(promise)

    def gather(self, promise: Promise) -> Batch | None:
        """As the gatherer does; raises what went wrong in the thread."""
        if promise is not self._next:
            return self._gatherer.gather(promise)
        while True:
            done, batch = self._done.get()
            if isinstance(batch, Exception):
                raise batch
            if done is promise:
                return batch

    def close(self) -> None:
        """May be called twice."""
        self._closed = True
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            promise = self._asked.get()
            if self._closed:
                return
            try:
                if promise is not None:
                    self._done.put((promise, self._gatherer.gather(promise)))
                self._tend()
            except Exception as error:
                self._done.put((promise, error))
