"""What all ranks do next, decided from the sum of what each of them sees; the stream calls it.

Every rank contributes one `Tally`, an all-reduce adds them up, and each rank gets the same `Round`
out of `decide`: nobody asks a leader, nobody waits in an all-reduce that others have left.

The limiter, with A admitted, D drawn and U not yet drawn samples of all shards, ratio r >= 1:

    a round with n repeated draws needs   D + U + n <= r A + band
    a round of first draws only           is always allowed

Setting the U aside keeps room for the first draw of everything that is stored, so that
D <= r A + band holds at all times and the trainer can always answer a reservoir full of unseen
samples. Producers are held when the seen samples are owed more than a band of repeats,
r (A - U) - D > band, which leaves room for an ordinary round: never both sides wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol

# A checkpoint needs a snapshot, which costs training time. Where one is taken anyway after so much
# of the time between checkpoints, the checkpoint goes with it and needs none of its own later.
EARLY = 0.9

Action = Literal["wait", "start", "train", "drain", "finish"]


class StockLike(Protocol):
    """The counts of one shard, as `feed.Stock` has them."""

    @property
    def admitted(self) -> int: ...
    @property
    def stored(self) -> int: ...
    @property
    def unseen(self) -> int: ...
    @property
    def ready(self) -> int: ...
    @property
    def fresh(self) -> int: ...
    @property
    def complete_simulations(self) -> int: ...
    @property
    def blocked(self) -> bool: ...
    @property
    def pressure(self) -> bool: ...
    @property
    def over(self) -> bool: ...


@dataclass(frozen=True)
class Tally:
    """What one rank contributes to a round, and the sum of it over the ranks."""

    ranks: float = 0
    ready: float = 0  # samples in this rank's next batch
    full: float = 0  # 1: no more can come to the next batch, it has batch_size or all is over
    repeats: float = 0  # samples of the next batch that were drawn before
    fresh: float = 0  # `ready` if there are no repeats in the next batch, else 0
    admitted: float = 0
    stored: float = 0
    unseen: float = 0  # never drawn, those of the next batch included
    complete: float = 0  # complete simulations, per shard
    blocked: float = 0
    pressure: float = 0
    over: float = 0
    drawn: float = 0  # by this rank since the campaign began
    loss: float = 0  # sum of the last finished batch
    # From rank 0 alone; the others contribute nothing.
    seconds: float = 0  # of training, restarts included
    stop: float = 0  # 1: a stop was ordered
    snapshot: float = 0  # batch of the newest snapshot that stands, plus one
    durable: float = 0  # batch of the newest checkpoint that stands, plus one
    writing: float = 0  # 1: a checkpoint is being written
    resting: float = 0  # 1: another snapshot so soon would cost too much of the time

    @classmethod
    def of(cls, stock: StockLike, batch_size: int, drawn: int) -> Tally:
        """One rank's view of its shard."""
        return cls(
            ranks=1,
            ready=stock.ready,
            full=stock.ready >= batch_size or stock.over,
            repeats=stock.ready - stock.fresh,
            fresh=stock.ready if stock.fresh == stock.ready else 0,
            admitted=stock.admitted,
            stored=stock.stored,
            unseen=stock.unseen,
            complete=stock.complete_simulations,
            blocked=stock.blocked,
            pressure=stock.pressure,
            over=stock.over,
            drawn=drawn,
        )

    def vector(self) -> list[float]:
        return [float(getattr(self, name)) for name in _COLUMNS]

    @classmethod
    def from_vector(cls, values: Sequence[float]) -> Tally:
        return cls(*values)

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(self.vector(), other.vector(), strict=True)))


_COLUMNS = tuple(column.name for column in fields(Tally))


@dataclass(frozen=True)
class Limits:
    """What bounds the rounds of one campaign; the same on all ranks."""

    ranks: int
    batch_size: int  # per rank
    threshold: int  # samples stored before training starts
    band: int  # samples
    policy: str = "reservoir"  # of the feeds; fifo and firo draw nothing twice
    draws_per_sample: float | None = None  # None: no limiter
    normalisation_simulations: int = 1  # complete ones, counted per shard, before the start
    snapshot_batches: int = 200
    pressure_batches: int = 20  # at least so many between snapshots while training goes on
    validation_batches: int | None = None  # a snapshot at every multiple
    checkpoint_s: float | None = None  # None: only the last
    stop_batches: int | None = None
    patience_s: float = 0.5  # for a starved rank, and before a blocked stream overrules a rule

    def __post_init__(self) -> None:
        batch = self.ranks * self.batch_size
        if self.draws_per_sample is None:
            return
        if self.draws_per_sample < 1:
            raise ValueError(
                f"draws_per_sample must be at least 1, got {self.draws_per_sample}: with less, "
                "samples would never be drawn and the producers would wait for ever."
            )
        if self.band < batch:
            raise ValueError(
                f"band must be at least ranks x batch_size = {batch}, got {self.band}: with less "
                "no batch would ever be let through."
            )

    def validates(self, batch: int) -> bool:
        """Whether the validator wants the weights after this batch."""
        every = self.validation_batches
        return every is not None and batch % every == 0


@dataclass(frozen=True)
class State:
    """What all ranks remember alike between rounds; stored in every snapshot."""

    batches: int = 0
    started: bool = False
    draining: bool = False
    snapshot_at: int = -1  # batch of the newest snapshot that was ordered
    checkpoint_at: int = -1
    checkpoint_s: float = 0.0
    full_s: float = 0.0  # when all ranks last had a full batch
    admitted: float = 0.0
    moved_s: float = 0.0  # when a sample was last admitted or a batch trained on


@dataclass(frozen=True)
class Round:
    """The same on all ranks. A snapshot or checkpoint comes before the action, at `after`."""

    action: Action
    after: int  # batches done so far
    why: str = ""  # what is waited for, or why training ends
    total: int = 0  # samples of all ranks in this batch
    fresh: bool = False  # only ranks take part whose next batch has no repeats
    snapshot: bool = False
    checkpoint: bool = False
    hold: bool = False  # producers are to wait, the trainer is behind

    def count(self, mine: Tally) -> int:
        """Samples that the rank with this contribution takes."""
        if self.action != "train":
            return 0
        return int(mine.fresh if self.fresh else mine.ready)


def decide(state: State, tally: Tally, limits: Limits) -> tuple[State, Round]:
    """The next round and what to remember after it."""
    if tally.ranks != limits.ranks:
        raise ValueError(f"Expected the tallies of {limits.ranks} ranks, got {tally.ranks:g}.")
    state = _note(state, tally)
    action, why, fresh = _action(state, tally, limits)
    snapshot, checkpoint = _saves(state, tally, limits, action)
    chosen = Round(
        action=action,
        after=state.batches,
        why=why,
        total=int(tally.fresh if fresh else tally.ready) if action == "train" else 0,
        fresh=fresh,
        snapshot=snapshot,
        checkpoint=checkpoint,
        # Never while the trainer waits: both sides would, and for ever.
        hold=action == "train" and _hold(state, tally, limits),
    )
    return _after(state, chosen, tally, limits), chosen


def slack(tally: Tally, limits: Limits) -> float:
    """Repeated draws that the limiter still allows, all unseen samples set aside."""
    if limits.draws_per_sample is None:
        return float("inf")
    return limits.draws_per_sample * tally.admitted + limits.band - tally.drawn - tally.unseen


def _action(state: State, tally: Tally, limits: Limits) -> tuple[Action, str, bool]:
    ended = _ended(state, tally, limits)
    if ended:
        return "finish", ended, False
    over = tally.over >= limits.ranks
    if not state.started:
        return (*_start(state, tally, limits, over), False)
    if state.draining:
        if tally.ready:
            return "train", "", False
        return ("wait", "empty", False) if tally.unseen else ("finish", "drained", False)
    if over and _drawn_enough(tally, limits):
        return "drain", "production is over", False
    lacking = _lacking(state, tally, limits, over)
    if lacking:
        return "wait", lacking, False
    if slack(tally, limits) >= tally.repeats:
        return "train", "", False
    if tally.fresh:
        return "train", "", True
    # A feed exchanges repeats for unseen samples while this is waited for; if it cannot, go on.
    return ("train", "", False) if _stalled(state, tally, limits) else ("wait", "limiter", False)


def _ended(state: State, tally: Tally, limits: Limits) -> str:
    if tally.stop:
        return "stopped"
    if limits.stop_batches is not None and state.batches >= limits.stop_batches:
        return "batches"
    return ""


def _start(state: State, tally: Tally, limits: Limits, over: bool) -> tuple[Action, str]:
    if over and not tally.stored:
        return "finish", "nothing was admitted"
    full = tally.blocked >= limits.ranks or _stalled(state, tally, limits)
    if over or (full and tally.stored):
        return "start", ""
    if tally.stored < limits.threshold or not tally.stored:
        return "wait", "threshold"
    if tally.complete < limits.normalisation_simulations:
        return "wait", "normalisation"
    return "start", ""


def _drawn_enough(tally: Tally, limits: Limits) -> bool:
    """Production is over: is it time to draw the unseen ones, once each?"""
    if not tally.stored or (limits.policy in ("fifo", "firo") and not tally.unseen):
        return True
    if limits.draws_per_sample is not None:
        return tally.drawn + tally.unseen >= limits.draws_per_sample * tally.admitted
    return limits.stop_batches is None


def _lacking(state: State, tally: Tally, limits: Limits, over: bool) -> str:
    """What a batch is waited for, or nothing."""
    if tally.ready == 0:
        return "empty"
    if over or tally.blocked:
        return ""
    if limits.policy == "firo" and tally.stored < limits.threshold:
        return "threshold"
    if tally.full == 0:
        return "empty"
    if tally.full < limits.ranks and tally.seconds - state.full_s < limits.patience_s:
        return "starved rank"
    return ""


def _stalled(state: State, tally: Tally, limits: Limits) -> bool:
    """Producers wait for room and nothing comes, so no rule may hold the trainer back."""
    return tally.blocked > 0 and tally.seconds - state.moved_s >= limits.patience_s


def _hold(state: State, tally: Tally, limits: Limits) -> bool:
    if limits.draws_per_sample is None or limits.policy != "reservoir":
        return False
    if not state.started or state.draining or tally.over:
        return False
    seen = tally.admitted - tally.unseen
    return limits.draws_per_sample * seen - tally.drawn > limits.band


def _saves(state: State, tally: Tally, limits: Limits, action: Action) -> tuple[bool, bool]:
    """Whether a snapshot and a checkpoint are due before this round."""
    if not state.started:
        return False, False
    since = state.batches - state.snapshot_at
    urgent = tally.pressure > 0 or (action == "wait" and tally.blocked > 0)
    rested = not tally.resting
    snapshot = since > 0 and (
        action == "finish"
        or state.snapshot_at < 0
        or since >= limits.snapshot_batches
        or limits.validates(state.batches)
        or (urgent and (action == "wait" or (since >= limits.pressure_batches and rested)))
    )
    due = (
        limits.checkpoint_s is not None
        and tally.seconds - state.checkpoint_s >= limits.checkpoint_s * (EARLY if snapshot else 1)
        and not tally.writing
    )
    checkpoint = state.batches > max(state.checkpoint_at, 0) and (due or action == "finish")
    return snapshot or (checkpoint and since > 0), checkpoint


def _note(state: State, tally: Tally) -> State:
    if tally.admitted == state.admitted:
        return state
    return replace(state, admitted=tally.admitted, moved_s=tally.seconds)


def _after(state: State, chosen: Round, tally: Tally, limits: Limits) -> State:
    if chosen.snapshot:
        state = replace(state, snapshot_at=state.batches)
    if chosen.checkpoint:
        state = replace(state, checkpoint_at=state.batches, checkpoint_s=tally.seconds)
    if tally.full >= limits.ranks or chosen.action == "start":
        state = replace(state, full_s=tally.seconds)
    if chosen.action == "start":
        return replace(state, started=True)
    if chosen.action == "drain":
        return replace(state, draining=True)
    if chosen.action == "train":
        return replace(state, batches=state.batches + 1, moved_s=tally.seconds)
    return state
