"""A simulation whose steps rank 0 sends for all MPI ranks; made by a link with gather="root".

`send`, `inputs`, `end` and `fail` are collective. Each begins with a word of every rank to all
others, added up: the same sums, and so the same decision, on all of them. They gather if all of
them come to the same call, and not if one gives the simulation up, if a shard has refused it, which
only rank 0 hears, or if they disagree. From then on nobody waits for anybody in this simulation,
and its end is that of rank 0.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from enum import IntEnum
from typing import Any, Callable, Protocol

import numpy as np

from penstock.gathering import INPUT, STEP, Gathering, Host
from penstock.ranks import Ranks
from penstock.sender import Sender
from penstock.shipment import Shipment
from penstock.simulation import Assignment, Outlet, Simulation
from penstock.wire import Header, Kind


class Word(IntEnum):
    """What ranks add up. The first five are the calls, of which each rank comes to one."""

    ASK = 0
    STEP = 1
    INPUT = 2
    END = 3
    FAIL = 4
    REFUSED = 5  # by a shard, as far as rank 0 knows
    STALE = 6  # rank 0 does not know the layout of the rank
    WHO = 7  # the number of the rank that gives up


CALLS = {
    Word.ASK: "asked whether it is cancelled",
    Word.STEP: "sent a step",
    Word.INPUT: "sent the input fields",
    Word.END: "ended it",
}


class GatheredOutlet(Outlet, Host, Protocol):
    """What it needs of the link that it runs on."""


class GatheredSimulation(Simulation):
    """Checks and counts on every rank, and reaches no shard itself: `_whole` of rank 0 does."""

    def __init__(
        self,
        assignment: Assignment,
        outlet: GatheredOutlet,
        ranks: Ranks,
        gathering: Gathering,
    ) -> None:
        super().__init__(replace(assignment, shards=()), outlet)
        self._host, self._ranks, self._gathering = outlet, ranks, gathering
        self._stop: tuple[str, str] | None = None  # the outcome and its reason, on all ranks alike
        self._whole: Simulation | None = None
        if ranks.rank == 0:
            self._whole = Simulation(assignment, _Root(outlet, gathering))

    @property
    def cancelled(self) -> bool:
        """Whether the server wants no more of this simulation; collective over the MPI ranks.

        All ranks get the same answer. What rank 0 hears before a step is known after it; between
        two steps that are far apart they ask each other, as ranks that send their own parts do.
        """
        if self._stop is None and self.outcome is None:
            if self._unasked:
                self._unasked -= 1
            elif self._go_on(self._ranks.settle()):
                self._unasked = self._ranks.ask(self._words(Word.ASK))
        return self._stop is not None

    @property
    def refusal(self) -> str | None:
        """The reason for which a shard refused this simulation, if all ranks know or this is 0."""
        if self._stop is not None and self._stop[0] == "refused":
            return self._stop[1]
        return self._whole.refusal if self._whole is not None else None

    def inputs(self, **fields: Any) -> None:
        """Sends the input fields, this rank's part by rank 0; before the first step; collective."""
        super().inputs(**fields)
        if self._all_come_to(Word.INPUT):
            gathered = self._gathering.gather(INPUT, fields)
            if self._whole is not None:
                self._whole.inputs(**gathered)
            self._opened = True

    def send(self, t: float | None = None, /, **fields: Any) -> None:
        """Sends one step, this rank's part of it by rank 0, whose `t` it has; collective.

        Waits for the other ranks, and on rank 0 while the server has no room. Raises LayoutError
        for a field that is undeclared, missing or of the wrong shape, and ConnectionLost, on rank
        0, when a shard is gone for good.
        """
        step = self.steps
        super().send(t, **fields)
        if self.steps == step or not self._assignment.wants(step // self._segment_steps):
            if self._whole is not None:
                self._whole._glance(time.monotonic())
        elif self._all_come_to(Word.STEP):
            gathered = self._gathering.gather(STEP, fields)
            if self._whole is not None:
                self._whole.steps = step  # those before it may be unwanted
                self._whole.send(t, **gathered)
            self._opened = True

    def end(self) -> None:
        """Says that the simulation is complete; leaving the loop body does the same; collective."""
        if self.outcome is None:
            self._all_come_to(Word.END)
            self._finish("ended", "")

    def fail(self, reason: str) -> None:
        """Ends this simulation on all ranks, with the reason that the report will show; the others
        are waited for."""
        if self.outcome is None:
            self._all_come_to(Word.FAIL, reason)
            self._finish("failed", reason)

    def abandon(self, reason: str) -> None:
        """Called when the program goes down: as `fail`, and waits for no other rank."""
        if self.outcome is None:
            self._finish("failed", reason)

    def release(self) -> None:
        """Called by the link when the worker turns to the next simulation."""
        super().release()
        if self._whole is not None:
            self._whole.release()

    def _finish(self, outcome: str, reason: str) -> None:
        outcome, reason = self._stop or (outcome, reason)
        whole = self._whole
        if whole is not None:
            whole.steps = self.steps
            if outcome == "failed":
                whole.fail(reason)
            else:  # of a refusal it knows
                whole.end()
            outcome, reason = whole.outcome or outcome, whole.reason
            self.time_s.update(whole.time_s)
        self._close(outcome, reason)
        self._outlet.finished(self)

    # -- what all ranks decide together ----------------------------------------------------------

    def _all_come_to(self, call: Word, reason: str = "") -> bool:
        """Whether all ranks have come to this call and go on in it; waits for them; collective."""
        if self._stop is not None or not self._go_on(self._ranks.settle(), reason):
            return False
        if call is not Word.FAIL:
            self._host.shares()  # a LayoutError comes before others count on this rank
        sums = self._ranks.total(self._words(call))
        if not self._go_on(sums, reason):
            return False
        self._unasked = max(1, self._unasked)  # they have just heard
        if sums[Word.STALE]:
            if self._whole is not None:
                self._whole.lay_out_anew()
            self._gathering.exchange()
        return True

    def _words(self, call: Word) -> list[int]:
        words = [0] * len(Word)
        words[call] = 1
        words[Word.REFUSED] = int(self._whole is not None and self._whole._refused())
        words[Word.STALE] = int(self._gathering.stale)
        words[Word.WHO] = self._ranks.rank if call is Word.FAIL else 0
        return words

    def _go_on(self, sums: np.ndarray | None, reason: str = "") -> bool:
        """Whether they do, by these sums; reason: of this rank, if it gives up. Collective."""
        if sums is None:
            return True
        failed, size = int(sums[Word.FAIL]), self._ranks.size
        if failed == 1:
            self._stop = "failed", self._ranks.tell(reason, int(sums[Word.WHO]))
        elif failed:
            self._stop = "failed", reason or f"{failed} of {size} MPI ranks gave it up."
        elif sums[Word.REFUSED]:
            self._stop = "refused", self._ranks.tell(self.refusal or "", 0)
        elif max(sums[call] for call in CALLS) < size:
            self._stop = "failed", _disagreement(sums)
        return self._stop is None


def _disagreement(sums: np.ndarray) -> str:
    did = " and ".join(f"{sums[call]} {words}" for call, words in CALLS.items() if sums[call])
    return f'The MPI ranks disagree: {did}. With gather="root" all of them make the same calls.'


class _Root:
    """The link as the simulation of whole fields sees it, which gets only the steps to be sent."""

    every = 1

    def __init__(self, outlet: Outlet, gathering: Gathering) -> None:
        self.segment_steps, self.bunch_bytes = outlet.segment_steps, outlet.bunch_bytes
        self.buffers = outlet.buffers
        self._outlet, self._gathering = outlet, gathering

    def shipment(self, fields: Mapping[str, Any], when: str) -> Shipment:
        return self._gathering.shipments[when]

    def step_shipment(self) -> Shipment | None:
        return self._gathering.shipments[STEP]

    def senders(self, shards: tuple[str, ...]) -> list[Sender]:
        return self._outlet.senders(shards)

    def tell_plan(self, senders: list[Sender]) -> None:
        self._outlet.tell_plan(senders)

    def header(self, kind: Kind, assignment: Assignment) -> Header:
        return self._outlet.header(kind, assignment)

    def anywhere(self, here: Callable[[], bool]) -> tuple[bool, int]:
        return here(), 0

    def finished(self, simulation: Simulation) -> None:
        """The simulation of all ranks tells it."""
