"""The MPI ranks of one solver program as its link needs them: one answer for all of them."""

from __future__ import annotations

import json
import os
import time
import traceback
from typing import Any, Callable

import numpy as np

from penstock.errors import ConnectionLost, PenstockError

ASK_S, ASK_STEPS = 0.05, 16  # between two questions to all ranks, whichever is sooner


class Ranks:
    """An mpi4py communicator, or None for a serial program; `rank` and `size` as there.

    Ranks that wait sleep in between: a spinning rank would take the core of one that computes.
    meanwhile: called in between, so that shards are heard.
    """

    def __init__(self, comm: Any, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.rank = 0 if comm is None else int(comm.Get_rank())
        self.size = 1 if comm is None else int(comm.Get_size())
        self._comm, self._meanwhile = comm, meanwhile
        self._asked: tuple[Any, np.ndarray, np.ndarray] | None = None  # a request and its memory
        self._asked_s = time.monotonic()
        self._every = 1  # of so many steps all ranks are asked
        if comm is None:
            _refuse_hidden_ranks()

    def together(self, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Rank 0 asks, all ranks get the answer or the same error; collective."""
        if self.size == 1:
            return ask()
        data = _encoded(ask) if self.rank == 0 else b""
        length = np.array([len(data)], dtype="i8")
        self._patiently(self._comm.Ibcast(length, root=0))
        body = np.zeros(int(length[0]), dtype="u1")
        body[: len(data)] = np.frombuffer(data, dtype="u1")
        self._patiently(self._comm.Ibcast(body, root=0))
        answer: dict[str, Any] = json.loads(body.tobytes())
        if answer["kind"] == "error":
            raise ConnectionLost(answer["why"])
        return answer

    def anywhere(self, here: Callable[[], bool]) -> tuple[bool, int]:
        """Whether it was so on any rank when they last asked, False at first, and for how many
        steps there is nothing new to ask; collective.

        Nobody waits here for ranks that are less than a step behind, as they would for an answer of
        now: every step of every rank would take as long as the slowest. Ranks with quick steps ask
        every few of them; they agree on how many. A lone rank has its own answer.
        """
        if self.size == 1:
            return here(), 0
        now_s = time.monotonic()
        step_s = ASK_S if self._asked is None else (now_s - self._asked_s) / self._every
        mine, self._asked_s = np.array([int(here()), int(1e6 * step_s)], dtype="i8"), now_s
        answer, step_us = self._answer()
        self._every = min(max(1, int(1e6 * ASK_S) // max(1, step_us)), ASK_STEPS)
        total = np.zeros(2, dtype="i8")
        self._asked = self._comm.Iallreduce(mine, total), mine, total
        return answer, self._every - 1

    def forget(self) -> None:
        """Before `anywhere` is asked about something else; collective in the same sense."""
        self._answer()
        self._every = 1

    def _answer(self) -> tuple[bool, int]:
        """What was asked last: the flag, and microseconds a step in the mean of the ranks."""
        if self._asked is None:
            return False, int(1e6 * ASK_S)
        (request, _, total), self._asked = self._asked, None
        self._patiently(request)
        return bool(total[0]), int(total[1]) // self.size

    def abort(self, error: Exception) -> None:
        """Ends every rank: the others wait in collectives that will never be called."""
        if self.size > 1:
            traceback.print_exception(type(error), error, error.__traceback__)
            self._comm.Abort(1)

    def _patiently(self, request: Any) -> None:
        pause_s = 0.0
        while not request.Test():
            self._meanwhile()
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s + 1e-5, 0.01)


def _encoded(ask: Callable[[], dict[str, Any]]) -> bytes:
    try:
        return json.dumps(ask()).encode()
    except PenstockError as problem:
        return json.dumps({"kind": "error", "why": str(problem)}).encode()


def _refuse_hidden_ranks() -> None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        size = os.environ.get(name, "1")
        if size.isdigit() and int(size) > 1:
            raise PenstockError(
                f"This program was started on {size} MPI ranks, and penstock.connect() was given "
                "no communicator. Call penstock.connect(MPI.COMM_WORLD)."
            )
