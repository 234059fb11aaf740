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
        self._number = 0  # of the batch that it was gathered for
        self._closed = False
        self._error: Exception | None = None
        self._asked: SimpleQueue[tuple[Promise, int] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Promise | None, Batch | None]] = SimpleQueue()
        self._thread = Thread(target=self._run, name="work-ahead", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises what went wrong in the thread."""
        if self._error is not None:
            raise self._error

    def turn(self) -> None:
        """Tend soon; returns at once."""
        self._asked.put(None)

    def prepare(self, promise: Promise, number: int) -> None:
        """It will be the next to be gathered, as batch `number`, unless it becomes void."""
        if promise is not self._next:
            self._next, self._number = promise, number
            self._asked.put((promise, number))

    def gather(self, promise: Promise, number: int) -> Batch | None:
        """As the gatherer does; raises what went wrong in the thread."""
        self.check()
        if promise is not self._next:
            return self._gatherer.gather(promise, number)
        while True:
            done, batch = self._done.get()
            self.check()
            if done is promise:
                break
        if number != self._number and self._gatherer.by_number:
            return self._gatherer.gather(promise, number)  # this rank was left out of a round
        return batch

    def close(self) -> None:
        """May be called twice."""
        self._closed = True
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            asked = self._asked.get()
            if self._closed:
                return
            promise = asked[0] if asked is not None else None
            try:
                if asked is not None:
                    self._done.put((promise, self._gatherer.gather(*asked)))
                self._tend()
            except Exception as error:  # whatever it is, the rank is to hear of it
                self._error = error
                self._done.put((promise, None))
