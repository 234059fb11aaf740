"""The MPI ranks of one solver program as its link needs them: one answer for all of them."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np

from penstock.errors import ConnectionLost, PenstockError

ASK_S, ASK_STEPS = 0.05, 16  # between two questions to all ranks, whichever is sooner


class Ranks:
    """An mpi4py communicator, or None for a serial program; `rank` and `size` as there.

    `part` of `n_parts` is what the server knows this rank as, if it `sends`. gathered: rank 0 is
    the only part and sends for all; of a single rank there is nothing to gather. Ranks that wait
    sleep in between: a spinning rank would take the core of one that computes. meanwhile: called in
    between, so that shards are heard.
    """

    def __init__(
        self, comm: Any, meanwhile: Callable[[], None] = lambda: None, gathered: bool = False
    ) -> None:
        self.rank = 0 if comm is None else int(comm.Get_rank())
        self.size = 1 if comm is None else int(comm.Get_size())
        self.gathered = gathered and self.size > 1
        self.part, self.n_parts = (0, 1) if self.gathered else (self.rank, self.size)
        self.sends = self.rank == 0 or not self.gathered
        self._comm, self._meanwhile = comm, meanwhile
        self._asked: tuple[Any, np.ndarray, np.ndarray] | None = None  # a request and its memory
        self._asked_s: float | None = None
        self._every, self._step_us = 1, int(1e6 * ASK_S)  # of so many steps all ranks are asked
        if comm is None:
            _refuse_hidden_ranks()

    def agree(self) -> None:
        """Raises PenstockError, on all ranks, if only some of them are to be gathered; collective.

        They would wait for each other in collectives that the others do not call.
        """
        n = 0 if self.size == 1 else int(self.total([int(self.gathered)])[0])
        if 0 < n < self.size:
            raise PenstockError(
                f'{n} of {self.size} MPI ranks called penstock.connect() with gather="root". Give '
                "it on all of them or on none."
            )

    def together(self, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Rank 0 asks, all ranks get the answer or the same error; collective."""
        if self.size == 1:
            return ask()
        answer: dict[str, Any] = json.loads(self.tell(_encoded(ask) if self.rank == 0 else "", 0))
        if answer["kind"] == "error":
            raise ConnectionLost(answer["why"])
        return answer

    def tell(self, text: str, root: int) -> str:
        """What one rank says, on all of them; collective."""
        data = text.encode("utf-8", "replace") if self.rank == root else b""
        length = np.array([len(data)], dtype="i8")
        self._patiently(self._comm.Ibcast(length, root=root))
        body = np.zeros(int(length[0]), dtype="u1")
        body[: len(data)] = np.frombuffer(data, dtype="u1")
        self._patiently(self._comm.Ibcast(body, root=root))
        return body.tobytes().decode()

    def gather(self, mine: np.ndarray, into: np.ndarray | None, counts: Sequence[int]) -> None:
        """Brings an array of each rank to rank 0, rank after rank; collective.

        into, counts: there, memory of the same dtype for counts[i] values of rank i.
        """
        received = None if into is None else [into, list(counts)]
        self._patiently(self._comm.Igatherv(mine, received, root=0))

    def anywhere(self, here: Callable[[], bool]) -> tuple[bool, int]:
        """Whether it was so on any rank when they last asked, False at first, and for how many
        steps there is nothing new to ask; collective.

        A lone rank has its own answer.
        """
        if self.size == 1:
            return here(), 0
        before = self.settle()
        return before is not None and bool(before[0]), self.ask([int(here())])

    def ask(self, words: Sequence[int]) -> int:
        """Adds up small numbers of all ranks, and for how many steps there is nothing new to ask;
        collective, like `settle`, which comes before the next one and has the sums.

        Nobody waits here, and there only for ranks that are more than a step behind, as they would
        for sums of now: every step of every rank would take as long as the slowest. Ranks with
        quick steps ask every few of them; they agree on how many.
        """
        now_s = time.monotonic()
        step_s = ASK_S if self._asked_s is None else (now_s - self._asked_s) / self._every
        self._every = min(max(1, int(1e6 * ASK_S) // max(1, self._step_us)), ASK_STEPS)
        self._asked_s = now_s
        self._add_up([max(1, int(1e6 * step_s)), *words])
        return self._every - 1

    def settle(self) -> np.ndarray | None:
        """The sums of what all ranks gave to the `ask` before; None if there was none."""
        if self._asked is None:
            return None
        (request, _, total), self._asked = self._asked, None
        self._patiently(request)
        if total[0]:
            self._step_us = int(total[0]) // self.size
        return total[1:]

    def total(self, words: Sequence[int]) -> np.ndarray:
        """The sums of what all ranks give now: waits for each of them; collective.

        A rank may come here while others come to `ask`: all have the same sums, these later.
        """
        self._add_up([0, *words])
        total = self.settle()
        assert total is not None
        return total

    def forget(self) -> None:
        """Before something else is asked about; collective in the same sense."""
        self.settle()
        self._asked_s = None
        self._every, self._step_us = 1, int(1e6 * ASK_S)

    def abort(self, error: BaseException) -> None:
        """Ends every rank: the others wait in collectives that will never be called."""
        if self.size > 1:
            traceback.print_exception(type(error), error, error.__traceback__)
            self._comm.Abort(1)

    def _add_up(self, numbers: Sequence[int]) -> None:
        """Begins it; the first number is microseconds a step, or 0 where nobody measured."""
        mine = np.array(numbers, dtype="i8")
        total = np.zeros_like(mine)
        self._asked = self._comm.Iallreduce(mine, total), mine, total

    def _patiently(self, request: Any) -> None:
        pause_s = 0.0
        while not request.Test():
            self._meanwhile()
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s + 1e-5, 0.01)


def _encoded(ask: Callable[[], dict[str, Any]]) -> str:
    try:
        return json.dumps(ask())
    except PenstockError as problem:
        return json.dumps({"kind": "error", "why": str(problem)})


def _refuse_hidden_ranks() -> None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        size = os.environ.get(name, "1")
        if size.isdigit() and int(size) > 1:
            raise PenstockError(
                f"This program was started on {size} MPI ranks, and penstock.connect() was given "
                "no communicator. Call penstock.connect(MPI.COMM_WORLD)."
            )
