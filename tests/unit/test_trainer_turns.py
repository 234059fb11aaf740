"""What the iteration tells the feed, and what rank 0 tells the coordinator."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import zmq
from trainer_scripted import ScriptedFeed, TickingClock, make_batches

from penstock import control
from penstock_server.feed import Stock
from penstock_server.pending_loss import PendingLoss
from penstock_server.progress import CoordinatorReport
from penstock_server.ranks import RankLost, Ranks, is_lost
from penstock_server.rounds import Limits, State
from penstock_server.time_spent import TimeSpent
from penstock_server.turns import Diverged, Turn, Turns
from penstock_surrogates.batch import Batch

LIMITS = Limits(ranks=1, batch_size=4, threshold=1, band=8, draws_per_sample=1.25)
FREE = replace(LIMITS, draws_per_sample=None)
FULL = Stock(400, 100, 20, 100, 4, 0, 3, False, False, False)


class ToldFeed(ScriptedFeed):
    """Gives the stocks it is told to, and remembers what it hears."""

    def __init__(self, *stocks: Stock) -> None:
        super().__init__(make_batches(1) * 50)
        self.stocks = list(stocks)

    def stock(self, timeout_s: float) -> Stock:
        return self.stocks.pop(0) if len(self.stocks) > 1 else self.stocks[0]


@dataclass
class Loop:
    """A loop over turns, one step at a time."""

    feed: ToldFeed
    limits: Limits = LIMITS

    def __post_init__(self) -> None:
        clock = TickingClock()
        self.turns = Turns(self.feed, Ranks(), self.limits, clock, TimeSpent(clock))
        self.turns.resume(State(started=True, batches=10, snapshot_at=10), 5.0)
        self.turns.drawn = 470
        self._iterator: Iterator[Turn] = iter(self.turns)

    def until(self, kind: str) -> Turn:
        return next(turn for turn in self._iterator if turn.kind == kind)


def test_a_batch_comes_with_its_number_and_is_counted_as_drawn() -> None:
    loop = Loop(ToldFeed(FULL))
    turn = loop.until("train")
    assert isinstance(turn.batch, Batch)
    assert (turn.round.total, loop.turns.drawn, loop.feed.taken) == (4, 474, {11: 0})


def test_producers_are_held_and_let_go_once() -> None:
    behind = replace(FULL, unseen=0)  # 400 seen samples are owed 500 draws
    loop = Loop(ToldFeed(behind), replace(LIMITS, band=8))
    loop.turns.drawn = 490
    for _ in range(3):
        loop.until("train")
    assert [call for call in loop.feed.calls if call[0] == "hold"] == [
        ("hold", True),
        ("hold", False),
    ]


def test_a_new_draw_is_asked_for_when_the_limiter_waits_and_half_is_unseen() -> None:
    tight = replace(FULL, unseen=51)
    loop = Loop(ToldFeed(tight, tight, replace(tight, fresh=4)))
    assert loop.until("wait").round.why == "limiter"
    assert loop.feed.calls == [("redraw",)]
    assert loop.until("train").round.fresh


def test_the_few_that_have_just_come_are_not_drawn_at_once() -> None:
    loop = Loop(ToldFeed(replace(FULL, unseen=50)))
    loop.turns.drawn = 500
    assert loop.until("wait").round.why == "limiter"
    assert loop.feed.calls == []


def test_what_is_safe_is_told_once() -> None:
    loop = Loop(ToldFeed(FULL))
    loop.turns.snapshot, loop.turns.durable = 10, 7
    for _ in range(3):
        loop.until("train")
    assert loop.feed.calls == [("snapshot", 10), ("settle", 7)]


def test_waiting_is_named_with_its_reason_and_its_cause() -> None:
    loop = Loop(ToldFeed(replace(FULL, ready=0, unseen=0)))
    for _ in range(4):
        loop.until("wait")
    waited = [name for name in loop.turns.spent.seconds if name.startswith("wait ")]
    assert waited == ["wait empty by solver"]
    loop.feed.stocks = [replace(FULL, ready=0, blocked=True)]
    for _ in range(3):
        loop.until("wait")
    assert loop.turns.spent.seconds["wait empty by reservoir"] > 0


def test_what_a_snapshot_leaves_of_a_waiting_round_is_waiting() -> None:
    loop = Loop(ToldFeed(replace(FULL, ready=0, blocked=True)))
    loop.turns.resume(State(started=True, batches=11, snapshot_at=10), 5.0)
    assert loop.until("save").round.why == "empty"
    loop.turns.spent.on("snapshot")
    loop.until("wait")
    assert loop.turns.spent.name == "wait empty by reservoir"


def test_the_time_until_a_loss_is_known_is_computing() -> None:
    loop = Loop(ToldFeed(FULL))
    loop.until("train")
    before = loop.turns.spent.seconds.get("compute", 0.0)
    loop.turns.loss = torch.tensor(2.0)
    loop.until("train")
    assert loop.turns.loss == 2.0
    assert loop.turns.spent.seconds["compute"] > before


class Later(PendingLoss):
    """As of a GPU; notes when it is waited for."""

    def __init__(self, value: float) -> None:
        self.value, self.waited_for = value, False

    def __float__(self) -> float:
        self.waited_for = True
        return self.value


def test_a_gpu_has_the_next_batch_before_the_loss_of_the_last_is_waited_for() -> None:
    loop = Loop(ToldFeed(FULL), FREE)
    losses = [Later(4.0 * n) for n in range(1, 5)]
    for n, loss in enumerate(losses):
        loop.until("train")
        loop.turns.loss = loss
        assert sum(each.waited_for for each in losses) == max(0, n - 1)
    loop.until("train")
    assert [each.waited_for for each in losses] == [True, True, True, False]
    assert loop.turns.mean_loss == 2.0  # the third's is on its way


def test_nothing_is_saved_before_all_losses_are_known() -> None:
    loop = Loop(ToldFeed(FULL), replace(FREE, snapshot_batches=2))
    for value in (4.0, 8.0):
        loop.until("train")
        loop.turns.loss = last = Later(value)
    assert loop.until("save").round.after == 12
    assert last.waited_for
    assert loop.turns.mean_loss == 2.0
    for value in (12.0, float("nan")):
        loop.until("train")
        loop.turns.loss = Later(value)
    with pytest.raises(Diverged, match="The loss of batch 14 should be"):
        loop.until("save")


def test_a_gpu_that_diverged_is_heard_of_one_batch_later() -> None:
    loop = Loop(ToldFeed(FULL), FREE)
    for value in (4.0, float("inf"), 4.0):
        loop.until("train")
        loop.turns.loss = Later(value)
    loop.until("train")
    with pytest.raises(Diverged, match="The loss of batch 12 should be"):
        loop.until("train")


def test_an_error_of_another_kind_is_not_taken_for_a_lost_rank() -> None:
    assert is_lost(RankLost("gone"))
    assert is_lost(RuntimeError("[../third_party/gloo/transport/tcp/pair.cc] Connection closed"))
    assert not is_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_lost(ValueError("gloo"))


def test_orders_come_back_from_the_coordinator_and_its_silence_ends_the_training() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    heard: list[dict[str, Any]] = []

    def coordinate() -> None:
        while len(heard) < 2 and router.poll(10_000):
            who, frame = router.recv_multipart()
            heard.append(control.decode(frame))
            orders = {"kind": "orders", "request": heard[-1]["request"], "stop": True}
            router.send_multipart([who, control.encode(orders)])

    coordinator = threading.Thread(target=coordinate)
    coordinator.start()
    report = CoordinatorReport(f"tcp://127.0.0.1:{port}", patience_s=0.0)
    body = {"state": "training", "loss": 0.5}
    assert report(body) is None
    orders = report({"state": "done", "loss": 0.5})
    coordinator.join()
    router.close(linger=0)
    assert orders is not None
    assert orders["stop"]
    assert (heard[0]["kind"], heard[0]["from"], heard[0]["loss"]) == ("progress", "trainer/0", 0.5)
    report(body)
    with pytest.raises(control.NoAnswer, match="The newest checkpoint stands"):
        report(body)
