"""The iteration of a training: batches that all ranks agreed on, and the saves between them.

The trainer loops over `Turns`; a user's own loop can do the same and look at "train" alone. The
counts of the next round are on their way while the present batch is computed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from penstock_server.feed import Feed
from penstock_server.pending_loss import PendingLoss
from penstock_server.ranks import Ranks
from penstock_server.rounds import Limits, Round, State, Tally, decide
from penstock_server.time_spent import Clock, TimeSpent, wait
from penstock_server.wait_causes import cause_of
from penstock_surrogates.batch import Batch

BEHIND = 1  # batches a GPU has when the loss of the one before them is waited for
PAUSE_S = (0.001, 0.05)  # the first and the longest pause of a round that waits


Loss = torch.Tensor | PendingLoss | float


class Diverged(RuntimeError):
    """The loss is not finite any more."""


def check_loss(loss: float, batch: int) -> None:
    """loss: of all ranks together; the first batch is 1. Raises Diverged if it is not finite."""
    if not math.isfinite(loss):
        raise Diverged(
            f"The loss of batch {batch} should be a finite number, but it is {loss}. Lower "
            "training.learning_rate, or look at the fields and at the loss or training_step of "
            "your own."
        )


@dataclass(frozen=True, slots=True)
class _Trained:
    """A batch: its number from 0, the loss of this rank's samples, and how many all ranks had."""

    number: int = -1
    loss: Loss = 0.0
    total: int = 0


@dataclass(frozen=True)
class Turn:
    """One thing to do. `batch` is this rank's share of a "train", None if it has none.

    A "save" comes before any action: `state` belongs into the snapshot.
    """

    kind: Literal["save", "wait", "start", "train", "drain", "finish"]
    round: Round
    state: State
    batch: Batch | None = None


class Turns:
    """Iterate over it; between two turns the caller may set the attributes marked so."""

    def __init__(
        self,
        feed: Feed,
        ranks: Ranks,
        limits: Limits,
        clock: Clock,
        spent: TimeSpent,
    ) -> None:
        self._feed, self._ranks, self._limits = feed, ranks, limits
        self._clock, self.spent = clock, spent
        self._began = clock.now()
        self.state = State()
        self.drawn = 0  # by this rank since the campaign began
        self.tally = Tally()  # of the newest round, all ranks together
        self.mean_loss: float | None = None  # of the newest batch that all ranks finished
        # Set by the caller:
        self.loss: Loss = 0.0  # sum over this rank's samples of the last batch
        self.stop = False  # rank 0: a stop was ordered
        self.snapshot = -1  # rank 0: batch of the newest snapshot that stands
        self.durable = -1  # rank 0: batch of the newest durable checkpoint
        self.writing = False  # rank 0: a checkpoint is being written
        self.rests_until_s = 0.0  # rank 0: no snapshot for mere pressure before this
        self._told = (-1, -1)
        self._held = False
        self._done = 0
        self._pauses = 0
        self._losses: deque[_Trained] = deque()  # of batches whose loss no tally has yet
        self._known = _Trained()  # the newest batch whose loss a tally has
        self._mine = Tally()

    @property
    def seconds(self) -> float:
        """Of training, with those before a restart."""
        return self._clock.now() - self._began

    @property
    def done(self) -> int:
        """Batches that this rank has taken its part in."""
        return self._done

    def resume(self, state: State, seconds: float) -> None:
        """Go on from a snapshot, before the first turn."""
        self.state = state
        self._done = state.batches
        self._began = self._clock.now() - seconds

    def __iter__(self) -> Iterator[Turn]:
        self._contribute()
        while True:
            if not self._pauses:
                self.spent.on("agree")
            self.tally = self._ranks.finish()
            self._check_loss(self.tally.loss)
            before = self.state
            self.state, chosen = decide(before, self.tally, self._limits)
            self._tell_feed(chosen)
            activity = self._activity(before, chosen)
            self.spent.on(activity)
            if chosen.snapshot or chosen.checkpoint:
                self._settle_losses()
                yield Turn("save", chosen, replace(before, snapshot_at=chosen.after))
                self.spent.on(activity)
            if chosen.action == "finish":
                yield Turn("finish", chosen, self.state)
                return
            if chosen.action == "start":
                yield Turn("start", chosen, self.state)
            elif chosen.action == "drain":
                self._feed.drain()
            batch = self._take(chosen)
            self._pause(chosen)
            self._contribute()
            if chosen.action in ("train", "wait"):
                yield Turn(chosen.action, chosen, self.state, batch)
            if chosen.action == "train":
                self._losses.append(_Trained(chosen.after, self.loss, chosen.total))
                self._done = chosen.after + 1

    def _take(self, chosen: Round) -> Batch | None:
        if not chosen.count(self._mine):
            if chosen.action == "train":
                self._feed.skip(chosen.after + 1)
            return None
        self.spent.on("gather")
        batch = self._feed.take(chosen.after + 1)
        self.spent.on("other")
        self.drawn += len(batch)
        return batch

    def _activity(self, before: State, chosen: Round) -> str:
        """What the time of a round goes to, as far as it is spent here."""
        if chosen.action != "wait":
            return "other"
        cause = cause_of(
            chosen.why, self.tally, self._limits, started=before.started, rounds=self._pauses
        )
        return wait(chosen.why, cause)

    def _pause(self, chosen: Round) -> None:
        """A waiting round takes longer and longer, up to PAUSE_S[1]."""
        if chosen.action != "wait":
            self._pauses = 0
            return
        mine = self._mine
        pause_s = min(PAUSE_S[0] * 2**self._pauses, PAUSE_S[1])
        self._pauses = min(self._pauses + 1, 16)
        # Not before half is unseen: what has just come is all of the few running simulations.
        if chosen.why == "limiter" and (mine.blocked or 2 * mine.unseen > mine.stored):
            self._feed.redraw()
        if chosen.why == "empty" and not mine.ready:
            self._feed.stock(pause_s)  # comes back as soon as a batch is ready
        else:
            self._clock.sleep(pause_s)

    def _contribute(self) -> None:
        stock = self._feed.stock(0.0)
        tally = Tally.of(stock, self._limits.batch_size, self.drawn)
        tally = replace(tally, loss=self._newest_loss())
        if self._ranks.rank == 0:
            tally = replace(
                tally,
                seconds=self.seconds,
                stop=self.stop,
                snapshot=self.snapshot + 1,
                durable=self.durable + 1,
                writing=self.writing,
                resting=self.seconds < self.rests_until_s,
            )
        self._mine = tally
        self._ranks.begin(tally)

    def _newest_loss(self) -> float:
        """The newest that is known while there is still work for the device.

        A GPU is at the last batch when the next round begins. If it were waited for here, it would
        have nothing to do until the next batch is on its way; so the loss of the one before is
        looked at. All ranks do alike.
        """
        pending = bool(self._losses) and isinstance(self._losses[-1].loss, PendingLoss)
        behind = BEHIND if pending else 0
        while len(self._losses) > behind:
            self._learn_loss()
        return float(self._known.loss)

    def _learn_loss(self) -> None:
        """The time until it is there is computing."""
        name = self.spent.name
        self.spent.on("compute")
        trained = self._losses.popleft()
        self._known = replace(trained, loss=float(trained.loss))
        self.spent.on(name)

    def _settle_losses(self) -> None:
        """Nothing is saved of which it is not known whether it diverged."""
        while self._losses:
            self._learn_loss()
            self._check_loss(sum(self._ranks.gather_everywhere(self._known.loss)))

    def _check_loss(self, loss: float) -> None:
        """loss: of the batch that is known, all ranks together."""
        check_loss(loss, self._known.number + 1)
        if self._known.total:
            self.mean_loss = loss / self._known.total

    def _tell_feed(self, chosen: Round) -> None:
        """What became safe and whether producers are to wait, once each."""
        snapshot, durable = int(self.tally.snapshot) - 1, int(self.tally.durable) - 1
        if snapshot > self._told[0]:
            self._feed.snapshot(snapshot)
        if durable > self._told[1]:
            self._feed.settle(durable)
        self._told = (max(snapshot, self._told[0]), max(durable, self._told[1]))
        if chosen.hold != self._held:
            self._held = chosen.hold
            self._feed.hold(chosen.hold)
