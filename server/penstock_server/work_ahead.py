"""A thread of the rank that gathers the next batches while one is computed.

It tends the line to the receiver as well: torch holds no interpreter lock while it computes. To
wake a thread that sleeps takes as long as half of what a batch costs its rank otherwise, so it is
asked for several at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread

from penstock_server.gathering import Gatherer, Promise
from penstock_surrogates.batch import Batch

AHEAD, AHEAD_BYTES = 4, 1 << 26  # of batches asked for at once, the most; one in any case


class WorkAhead:
    """Some batches ahead of a `Gatherer`; promises that became void meanwhile are let go."""

    def __init__(self, gatherer: Gatherer, tend: Callable[[], None], batch_size: int = 1) -> None:
        """tend: called after every batch and at every `turn`, in the thread."""
        self._gatherer, self._tend = gatherer, tend
        n_bytes = max(1, batch_size * gatherer.sample_bytes)
        self._most = max(1, min(AHEAD, AHEAD_BYTES // n_bytes))
        self._prepared: deque[tuple[Promise, int]] = deque()  # with the number it is gathered for
        self._closed = False
        self._error: Exception | None = None
        self._asked: SimpleQueue[tuple[tuple[Promise, int], ...]] = SimpleQueue()
        self._done: SimpleQueue[tuple[Promise | None, Batch | None]] = SimpleQueue()
        self._thread = Thread(target=self._run, name="work-ahead", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises what went wrong in the thread."""
        if self._error is not None:
            raise self._error

    def turn(self) -> None:
        """Tend soon; returns at once."""
        self._asked.put(())

    def prepare(self, promises: Sequence[Promise], number: int) -> None:
        """The first of them will be the next to be gathered, as batch `number` and so on.

        Does nothing while some are prepared. One is left, so that there is one to ask for next
        while new ones come. More may be appended meanwhile, and they may become void.
        """
        if not self._prepared:
            n = max(1, min(self._most, len(promises) - 1))
            asked = tuple((promises[i], number + i) for i in range(n))
            self._prepared.extend(asked)
            self._asked.put(asked)

    def gather(self, promise: Promise, number: int) -> Batch | None:
        """As the gatherer does; raises what went wrong in the thread."""
        self.check()
        prepared = self._prepared
        while prepared and prepared[0][0] is not promise:
            prepared.popleft()  # void
        if not prepared:
            return self._gatherer.gather(promise, number)
        _, own_number = prepared.popleft()
        while True:
            done, batch = self._done.get()
            self.check()
            if done is promise:
                break
        if number != own_number and self._gatherer.by_number:
            return self._gatherer.gather(promise, number)  # this rank was left out of a round
        return batch

    def close(self) -> None:
        """May be called twice."""
        self._closed = True
        self._asked.put(())
        self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            self._work(self._asked.get())

    def _work(self, asked: tuple[tuple[Promise, int], ...]) -> None:
        """What it has in its hands is gone when it returns: batches may be large."""
        promise: Promise | None = None
        try:
            for promise, number in asked:
                if self._closed:
                    return
                self._done.put((promise, self._gatherer.gather(promise, number)))
                self._tend()
            if not asked and not self._closed:
                self._tend()
        except Exception as error:  # whatever it is, the rank is to hear of it
            self._error = error
            self._done.put((promise, None))
