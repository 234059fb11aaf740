"""A rank and its receiver under any order of events, kills included, against an obvious model.

The model is which sample was drawn by which batch, as the rank saw it. Nothing that is counted may
be lost or counted twice: in the slab stands what the rank drew, also after either was killed.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from receiver_thread import STEPS, ReceiverThread

from penstock_server import feed_line
from penstock_server.feed import ShardFeed

Sample = tuple[int, int]  # simulation, step
SIZE = 3


class Draws(RuleBasedStateMachine):
    """Slots for 30 samples and batches of 3: promises, draws and evictions meet all the time."""

    policy = "reservoir"
    work_ahead = False

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="feed-"))
        self.receiver = ReceiverThread(self.folder, self.policy, n_slots=30)
        self.feed = self.attach()
        self.simulations = 0
        self.admitted: set[Sample] = set()
        self.first: dict[Sample, int] = {}  # batch of the first draw that counts
        self.draws: list[tuple[int, Sample]] = []  # that count
        self.batch = self.covered = 0
        self.torn = 0  # batches that were given back

    def attach(self) -> ShardFeed:
        feed = ShardFeed(self.receiver.settings(SIZE, work_ahead=self.work_ahead))
        line, cancel = feed._line, feed._line.cancel

        def count(promise: object) -> None:
            self.torn += 1
            cancel(promise)  # type: ignore[arg-type]

        line.cancel = count  # type: ignore[method-assign]
        return feed

    # -- events ----------------------------------------------------------------------------------

    @rule(n=st.integers(1, STEPS))
    def admit(self, n: int) -> None:
        came = self.receiver.admit(self.simulations, n)
        self.admitted |= {(self.simulations, step) for step in range(came)}
        self.simulations += 1

    @rule(n=st.integers(1, 6))
    def take(self, n: int) -> None:
        for _ in range(n):
            stock = self.feed.stock(0.02)
            if not stock.ready:
                return
            torn = self.torn
            samples = self.draw()
            if self.torn == torn:  # else it was another batch than the one in stock
                fresh = sum(sample not in self.first for sample in samples)
                # A batch that is given back leaves its first draws to others ahead of it.
                assert stock.fresh == fresh or (self.torn and stock.fresh < fresh)
            self.note(samples)

    def draw(self) -> list[Sample]:
        self.batch += 1
        batch = self.feed.take(self.batch)
        samples = list(zip(batch.simulation.tolist(), batch.step[:, 0].tolist()))
        assert len(set(samples)) == len(samples)
        for i, (simulation, step) in enumerate(samples):
            assert (simulation, step) in self.admitted
            assert (batch.fields["u"][i] == STEPS * simulation + step).all()
        return samples

    def note(self, samples: list[Sample]) -> None:
        for sample in samples:
            if self.policy in ("fifo", "firo"):
                assert sample not in self.first, "a sample was drawn twice"
            self.first.setdefault(sample, self.batch)
            self.draws.append((self.batch, sample))

    @rule()
    def redraw(self) -> None:
        self.feed.redraw()

    @rule()
    def snapshot(self) -> None:
        """As the trainer does: the draws are noted, the weights written, then it is told."""
        self.feed.report()
        self.compare()
        self.covered = self.batch
        self.feed.snapshot(self.covered)

    @rule()
    def kill_receiver(self) -> None:
        self.receiver.kill()
        self.receiver.start()

    @rule(n=st.integers(1, 3))
    def kill_receiver_that_did_not_listen(self, n: int) -> None:
        self.receiver.await_turn()
        self.feed.stock(0.0)  # who has not greeted it would wait for its answer in vain
        entered, leave = self.receiver.halt()
        assert entered.wait(10)
        while n and self.feed._line.ahead:
            self.note(self.draw())
            self.feed._line._report()
            n -= 1
        leave.set()
        self.kill_receiver()

    @rule()
    def kill_rank(self) -> None:
        """What it had not told is gone, and so are the weights that knew of it."""
        if self.feed._worker is not None:
            self.feed._worker.close()
        self.feed._line._context.destroy(linger=0)
        self.feed = self.attach()
        self.restore()

    @rule()
    def restore(self) -> None:
        self.feed.restore(self.covered)
        self.batch = self.covered
        self.draws = [(batch, sample) for batch, sample in self.draws if batch <= self.covered]
        self.first = {s: batch for s, batch in self.first.items() if batch <= self.covered}
        self.compare()

    # -- what must hold --------------------------------------------------------------------------

    def compare(self) -> None:
        """The marks in the slab are the rank's draws, once the rank has told of all of them.

        A draw may be told before an earlier one of the same sample that a killed receiver took with
        it; both are then on the same side of the snapshot.
        """
        slab = self.receiver.shard.slab
        for row, drawn in zip(slab.descriptor, slab.drawn[:, 0].tolist()):
            if row["state"] == 2:
                sample = (int(row["simulation"]), int(row["segment"]))
                first = self.first.get(sample, 0)
                assert (drawn > 0, drawn > self.covered) == (first > 0, first > self.covered)

    @precondition(lambda self: self.simulations)
    @invariant()
    def counts_add_up(self) -> None:
        """`unseen` may still have what is on its way, and nothing is ever missing from it."""
        stock = self.feed.stock(0.0)
        assert stock.unseen >= stock.admitted - len(self.first)

    def teardown(self) -> None:
        if not hasattr(self, "receiver"):
            return
        self.receiver.over()
        self.feed.drain()
        deadline = time.monotonic() + 20
        while (stock := self.feed.stock(0.05)).ready or stock.unseen:
            assert time.monotonic() < deadline, stock
            if stock.ready:
                self.note(self.draw())
        self.feed.report()
        self.compare()
        assert self.first.keys() == self.admitted
        self.feed.close()
        self.receiver.kill()
        shutil.rmtree(self.folder)


@pytest.mark.parametrize("policy", ["reservoir", "fifo", "firo"])
@pytest.mark.parametrize("work_ahead", [False, True], ids=["alone", "ahead"])
def test_draws_are_counted_once_under_any_order_of_events(
    policy: str, work_ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_line, "RETRY_S", 0.1)
    machine = type("Draws", (Draws,), {"policy": policy, "work_ahead": work_ahead}).TestCase
    machine.settings = settings(
        max_examples=8,
        stateful_step_count=25,
        deadline=None,
        phases=[Phase.generate],  # what two processes do at once is not found again by shrinking
        suppress_health_check=list(HealthCheck),
    )
    machine("runTest").runTest()
