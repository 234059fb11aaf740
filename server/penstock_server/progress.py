"""What a rank tells from time to time, rank 0 the coordinator, and the orders that come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.control import Asker, NoAnswer
from penstock.keys import ClientKeys
from penstock_server.learner import Learner
from penstock_server.saving import counts
from penstock_server.time_spent import shares, waits
from penstock_server.turns import Turn, Turns

DONE_S = 30.0  # to be heard by the coordinator at the end

# Posts progress without waiting; gives the orders that came meanwhile, {"stop": bool, "why": str}.
Report = Callable[[dict[str, Any]], "dict[str, Any] | None"]


class Progress:
    """Of one rank; only rank 0 gets orders."""

    def __init__(
        self,
        report: Report,
        every_s: float,
        rank: int,
        learner: Learner,
        turns: Turns,
    ) -> None:
        self._report, self._every_s, self._rank = report, every_s, rank
        self._learner, self._turns = learner, turns
        self._due_s = 0.0
        self._losses = (0.0, 0)  # sum and number since the last report
        self._told = ""  # the error that was reported last
        self._why = ""  # of an order to stop

    def look(self, turn: Turn, error: str) -> None:
        """Report if it is time to."""
        turns = self._turns
        if turn.kind == "train" and turns.mean_loss is not None:
            self._losses = (self._losses[0] + turns.mean_loss, self._losses[1] + 1)
        if turns.seconds < self._due_s:
            return
        self._due_s = turns.seconds + self._every_s
        self.post(self.body(self.state, "" if error == self._told else error))
        self._told = error

    @property
    def state(self) -> str:
        """The word for where training is."""
        if not self._turns.state.started:
            return "waiting"
        return "draining" if self._turns.state.draining else "training"

    def post(self, body: dict[str, Any]) -> None:
        """Post this now and follow the orders."""
        orders = self._report(body)
        if not self._rank and orders and orders.get("stop"):
            self._turns.stop = True
            self._why = str(orders.get("why", ""))

    def body(self, state: str, error: str = "") -> dict[str, Any]:
        """The body of a report. The loss is the mean over the batches since the last one."""
        total, n = self._losses
        loss = total / n if n else self._turns.mean_loss
        self._losses = (0.0, 0)
        seconds, tally = self._turns.spent.so_far(), self._turns.tally
        return {
            **counts(self._turns),
            "admitted": int(tally.admitted),
            "over": tally.ranks > 0 and tally.over >= tally.ranks,  # production is
            "loss": loss,
            "learning_rate": self._learner.learning_rate,
            "time_share": shares(seconds),
            "waits_s": waits(seconds),
            "time_s": {name: round(s, 4) for name, s in seconds.items()},
            "state": state,
            "snapshot": self._turns.snapshot,
            "checkpoint": self._turns.durable,
            "stop_why": self._why,
            "error": error,
        }


class CoordinatorReport:
    """A `Report` to the coordinator; gives up when it is silent for patience_s."""

    def __init__(self, address: str, patience_s: float, keys: str | None = None) -> None:
        """keys: the clients' key file, if the campaign has one."""
        self._asker = Asker(address, "trainer/0", keys=ClientKeys.given(keys))
        self._patience_s = patience_s

    def __call__(self, body: dict[str, Any]) -> dict[str, Any] | None:
        if body["state"] == "done":
            return self._asker.ask("progress", timeout_s=DONE_S, **body)
        reply = self._asker.poll()
        if self._asker.waited_s > self._patience_s:
            raise NoAnswer(
                f"The coordinator at {self._asker.address} has been silent for "
                f"{self._patience_s:g} s, so training ends. The newest checkpoint stands."
            )
        self._asker.post("progress", **body)
        return reply
