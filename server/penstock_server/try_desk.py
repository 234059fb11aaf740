"""The coordinator of `penstock try`: answers one agent and one worker; pure, without sockets.

The counting server puts it on its control socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock_server.try_counts import Counts

SHARD = "0"


@dataclass(frozen=True)
class Work:
    """The simulations to hand out: inputs, and the seed and id of the first; both count up."""

    points: tuple[dict[str, float], ...]
    seed: int = 1
    first: int = 0
    role: str = "train"


class Desk:
    """Answers the control path: a coordinator of one agent, one worker and few simulations.

    `over`: no more is handed out. `ending`: the program is to be ended.
    """

    def __init__(
        self,
        counts: Counts,
        welcome: Mapping[str, Any],
        work: Work,
    ) -> None:
        self.over = self.ending = False
        self.greeted_s: float | None = None
        self.started_s: float | None = None
        self.over_s: float | None = None  # the worker was told so
        self.n_ranks = 0
        self.exit_code: int | None = None
        self.stderr_tail = ""
        self.starts = 0
        self.finished = False  # the program has ended and is not started again
        self._counts, self._welcome, self._planned = counts, welcome, work
        self._handed = 0
        self._handed_before_start = 0
        self._answers: dict[tuple[str, int], dict[str, Any]] = {}

    @property
    def exhausted(self) -> bool:
        """Whether every simulation was handed out."""
        return self.over or self._handed >= len(self._planned.points)

    def answer(self, request: Mapping[str, Any], now: float) -> dict[str, Any]:
        """The reply to a request; the same for one that is repeated."""
        kind = request.get("kind")
        if kind == "hello":
            self.greeted_s = self.greeted_s if self.greeted_s is not None else now
            self.n_ranks = int(request.get("ranks", request.get("parts", 1)))
            return {"kind": "welcome", **self._welcome}
        if kind == "fields":
            self._counts.declare(request["fields"])
            return {"kind": "fields"}
        if kind == "book":
            return {"kind": "book", "shards": self._welcome["shards"]}
        if kind in ("next", "fail"):
            return self._work(request, now)
        if kind == "beat":
            return {"kind": "orders", **self._order(request, now)}
        return {"kind": "refused", "why": f"`penstock try` does not know the request {kind!r}."}

    def _work(self, request: Mapping[str, Any], now: float) -> dict[str, Any]:
        if request["kind"] == "fail":
            self._counts.previous({**request, "outcome": "failed"}, now)
            return {"kind": "noted"}
        key = (str(request["worker"]), int(request["sequence"]))
        if key not in self._answers:
            if request.get("previous"):
                self._counts.previous(request["previous"], now)
            self._answers[key] = self._next(bool(request.get("leaving")), now)
        return self._answers[key]

    def _next(self, leaving: bool, now: float) -> dict[str, Any]:
        if leaving or self.exhausted:
            self.over_s = now if self.exhausted and self.over_s is None else self.over_s
            return {"kind": "over"}
        turn, self._handed = self._handed, self._handed + 1
        planned = self._planned
        number, parameters = planned.first + turn, planned.points[turn]
        self._counts.assign(number, parameters, now)
        return {
            "kind": "assignment", "simulation": number, "lease": turn + 1,
            "role": planned.role, "attempt": 1, "seed": planned.seed + turn,
            "parameters": parameters, "shards": [SHARD], "wanted": None,
        }  # fmt: skip

    def _order(self, beat: Mapping[str, Any], now: float) -> dict[str, Any]:
        """A reply may be lost: what was ordered is ordered again until a beat shows it."""
        state, worker = beat.get("state"), f"w{self.starts}"
        self.stderr_tail = str(beat.get("stderr_tail") or self.stderr_tail)
        if state == "exited" and beat.get("worker") == worker:
            self.exit_code = beat.get("exit_code")
            if not self._may_restart():
                self.finished = True
                return {"order": "leave"}
            self.starts += 1
        elif state == "idle" and not self.starts:
            self.starts, self.started_s = 1, now
        elif state not in ("idle", "exited"):
            ends = self.ending and state in ("running", "stopped")
            return {"order": "end" if ends else "go_on"}
        return {"order": "start", "worker": f"w{self.starts}"}

    def _may_restart(self) -> bool:
        """A program that runs one simulation and exits is started again for the next."""
        progress = self._handed > self._handed_before_start
        self._handed_before_start = self._handed
        done = self.finished or self.ending or self.exhausted
        return progress and not self.exit_code and not done
