"""An MPI communicator of threads: as much of mpi4py as the client uses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

_Come = tuple[dict[int, Any], set[str]]  # what each rank brought to a collective, and to which


class _Request:
    """A collective that is complete when every rank has come to it."""

    def __init__(self, done: Callable[[], bool]) -> None:
        self._done = done

    def Test(self) -> bool:
        return self._done()


class ThreadedComm:
    """The communicator of one thread; `ranks(n)` makes one for each."""

    def __init__(self, rank: int, size: int, shared: dict[int, _Come]) -> None:
        self._rank, self._size, self._shared = rank, size, shared
        self._calls = 0
        self.aborted = False

    @classmethod
    def ranks(cls, size: int) -> list[ThreadedComm]:
        shared: dict[int, _Come] = {}
        return [cls(rank, size, shared) for rank in range(size)]

    def Get_rank(self) -> int:
        return self._rank

    def Get_size(self) -> int:
        return self._size

    def Ibcast(self, values: np.ndarray, root: int = 0) -> _Request:
        def take(come: dict[int, Any]) -> None:
            values[...] = come[root]

        return self._collective("Ibcast", values, take)

    def Igatherv(self, mine: np.ndarray, into: Any, root: int = 0) -> _Request:
        assert (into is not None) == (self._rank == root)

        def take(come: dict[int, Any]) -> None:
            if into is not None:
                values, counts = into
                assert counts == [len(come[rank]) for rank in range(self._size)]
                values[...] = np.concatenate([come[rank] for rank in range(self._size)])

        return self._collective("Igatherv", mine, take)

    def Iallreduce(self, mine: np.ndarray, total: np.ndarray) -> _Request:
        def take(come: dict[int, Any]) -> None:
            total[...] = sum(come.values())

        return self._collective("Iallreduce", mine, take)

    def Abort(self, code: int) -> None:
        self.aborted = True

    def _collective(
        self, name: str, mine: np.ndarray, take: Callable[[dict[int, Any]], None]
    ) -> _Request:
        come, names = self._shared.setdefault(self._calls, ({}, set()))
        self._calls += 1
        names.add(name)
        come[self._rank] = mine.copy()

        def done() -> bool:
            assert len(names) == 1, f"Ranks came to different collectives: {names}."
            if len(come) < self._size:
                return False
            take(come)
            return True

        return _Request(done)


def run_ranks(size: int, program: Callable[[ThreadedComm], None], timeout_s: float = 30.0) -> None:
    """Runs the program on every rank; raises the first error of any."""
    errors: list[BaseException] = []

    def one(comm: ThreadedComm) -> None:
        try:
            program(comm)
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=one, args=(c,), daemon=True) for c in ThreadedComm.ranks(size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout_s)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "A rank did not come to its end."
