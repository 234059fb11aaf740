"""Where simulations come from: the coordinator of a campaign, or nobody; owned by the link."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any, Callable, Protocol

import zmq

from penstock.control import Asker, NoAnswer
from penstock.errors import ConnectionLost, PenstockError
from penstock.keys import ClientKeys
from penstock.ranks import Ranks

PATIENCE_S = 120.0


class Source(Protocol):
    """What the link asks; `hello` and `next` are collective over the MPI ranks."""

    def hello(self) -> dict[str, Any]: ...
    def next(self) -> dict[str, Any] | None: ...
    def note(self, outcome: dict[str, Any]) -> None: ...
    def declare(self, fields: Mapping[str, Any]) -> None: ...
    def fail(self) -> None: ...
    def leave(self) -> None: ...
    def close(self) -> None: ...


class Coordinator:
    """The coordinator of a campaign, asked by rank 0 in the name of this worker.

    meanwhile: called while the coordinator has nothing to do for us, so that shards are heard.
    Raises ConnectionLost when it does not answer, PenstockError when it refuses.
    """

    def __init__(
        self,
        address: str,
        ranks: Ranks,
        context: zmq.Context[zmq.Socket[bytes]],
        meanwhile: Callable[[], None],
        keys: ClientKeys | None = None,
    ) -> None:
        self._ranks, self._meanwhile = ranks, meanwhile
        self._worker = os.environ.get("PENSTOCK_WORKER", f"{socket.gethostname()}-{os.getpid()}")
        self._asker = Asker(address, f"worker/{self._worker}", context=context, keys=keys)
        self._sequence = 0
        self._outcome: dict[str, Any] | None = None  # of the simulation before, not yet told

    def hello(self) -> dict[str, Any]:
        """The welcome: the campaign's number, its fields, its shards."""
        about = {
            "agent": os.environ.get("PENSTOCK_AGENT"),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "parts": self._ranks.n_parts,
            "client": "python",
            **({"ranks": self._ranks.size} if self._ranks.gathered else {}),
        }
        return self._ranks.together(lambda: self._ask_until("hello", **about))

    def next(self) -> dict[str, Any] | None:
        """The next assignment, or None when there are no more; tells how the one before ended."""
        self._sequence += 1
        body = {"sequence": self._sequence, "previous": self._outcome}
        answer = self._ranks.together(lambda: self._ask_until("next", **body))
        self._outcome = None
        return answer if answer["kind"] == "assignment" else None

    def note(self, outcome: dict[str, Any]) -> None:
        """Keeps how a simulation ended, to be told with the next request."""
        self._outcome = outcome

    def declare(self, fields: Mapping[str, Any]) -> None:
        """Names the fields where no campaign file does."""
        if self._ranks.rank == 0:
            self._ask("fields", fields=fields)

    def fail(self) -> None:
        """Tells at once, from whichever rank, that the simulation failed; may raise NoAnswer."""
        if self._outcome is not None:
            self._asker.ask("fail", timeout_s=5.0, worker=self._worker, **self._outcome)

    def leave(self) -> None:
        """Says goodbye, and how the last simulation ended."""
        if self._ranks.rank == 0:
            self._sequence += 1
            self._ask("next", sequence=self._sequence, previous=self._outcome, leaving=True)

    def close(self) -> None:
        """May be called twice."""
        self._asker.close()

    def _ask(self, kind: str, **body: Any) -> dict[str, Any]:
        try:
            answer = self._asker.ask(kind, timeout_s=PATIENCE_S, worker=self._worker, **body)
        except NoAnswer as silence:
            raise ConnectionLost(str(silence)) from silence
        if answer["kind"] == "refused":
            raise PenstockError(f"The coordinator refused {kind!r}: {answer.get('why')}")
        return answer

    def _ask_until(self, kind: str, **body: Any) -> dict[str, Any]:
        """Repeats a request for as long as the answer is `wait`."""
        while True:
            answer = self._ask(kind, **body)
            if answer["kind"] != "wait":
                return answer
            until = time.monotonic() + float(answer.get("retry_s", 0.2))
            while time.monotonic() < until:
                self._meanwhile()
                time.sleep(0.02)


class Alone:
    """No server: one simulation with the given parameters, whose fields are learned and dropped."""

    def __init__(self, parameters: Mapping[str, float]) -> None:
        self._assignment: dict[str, Any] | None = {
            "simulation": 0, "lease": 1, "role": "train", "attempt": 1, "seed": 0,
            "parameters": dict(parameters), "shards": (),
        }  # fmt: skip

    def hello(self) -> dict[str, Any]:
        return {"campaign": 0, "shards": {}, "fields": {}, "stream": {"undeclared": True}}

    def next(self) -> dict[str, Any] | None:
        given, self._assignment = self._assignment, None
        return given

    def note(self, outcome: dict[str, Any]) -> None: ...
    def declare(self, fields: Mapping[str, Any]) -> None: ...
    def fail(self) -> None: ...
    def leave(self) -> None: ...
    def close(self) -> None: ...
