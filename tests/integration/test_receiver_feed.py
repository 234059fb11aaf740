"""A rank and its receiver: what was promised before a restart is not promised twice after it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scripted import ReceiverProcess, ScriptedCoordinator, assignment, wait_for, welcome

import penstock
from penstock_server.feed import FeedSettings, ShardFeed

pytestmark = pytest.mark.timeout(60)
N_SIMULATIONS, STEPS = 6, 10


class Stand:
    """A receiver that has everything already, and the rank beside it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, policy: str) -> None:
        self.coordinator = ScriptedCoordinator({}, [])
        self.coordinator.start()
        self.receiver = ReceiverProcess(folder, self.coordinator.address, policy=policy)
        self.coordinator.assignments = [assignment(s, ["0"]) for s in range(N_SIMULATIONS)]
        self.coordinator.welcome = welcome([self.receiver])
        wait_for(lambda: "0" in self.coordinator.reports, what="the receiver")
        patch.setenv("PENSTOCK_COORDINATOR", self.coordinator.address)
        patch.setenv("PENSTOCK_WORKER", "w0")
        with penstock.connect() as link:
            for sim in link.simulations():
                for step in range(STEPS):
                    sim.send(0.1 * step, u=np.full((8, 6), 100.0 * sim.id + step))
        wait_for(lambda: len(self.coordinator.delivered) == N_SIMULATIONS)
        self.coordinator.orders["production"] = "over"
        settings = self.receiver.settings
        self.feed = ShardFeed(
            FeedSettings("0", settings.folder, settings.feed, 4, {"u": 1}, patience_s=20.0)
        )
        wait_for(lambda: self.feed.stock(0.1).over, what="the end of production")
        self.batch = 0

    def take(self) -> list[tuple[int, int]]:
        """(simulation, step) of the next batch."""
        self.batch += 1
        batch = self.feed.take(self.batch)
        pairs = list(zip(batch.simulation.tolist(), batch.step[:, 0].tolist()))
        for i, (simulation, step) in enumerate(pairs):
            assert (batch.fields["u"][i] == 100.0 * simulation + step).all()
        return pairs

    def noted(self, n: int) -> None:
        """Until the receiver knows that n samples were drawn."""
        self.feed.report()
        total = N_SIMULATIONS * STEPS
        wait_for(lambda: self.feed.stock(0.01).unseen == total - n, what="the notes of the draws")

    def close(self) -> None:
        self.feed.close()
        self.receiver.stop()
        self.coordinator.stop()


@pytest.fixture(params=["fifo", "firo"])
def stand(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stand]:
    stand = Stand(tmp_path, monkeypatch, request.param)
    yield stand
    stand.close()


EVERYTHING = sorted((s, k) for s in range(N_SIMULATIONS) for k in range(STEPS))


def test_every_sample_is_drawn_once_over_a_restart_of_the_receiver(stand: Stand) -> None:
    seen = [pair for _ in range(5) for pair in stand.take()]
    stand.noted(20)
    stand.receiver.kill()
    stand.receiver.start()
    while len(seen) < len(EVERYTHING):
        seen += stand.take()
    assert sorted(seen) == EVERYTHING
    stand.noted(len(EVERYTHING))
    assert not stand.feed.stock(0.2).ready


def test_a_rank_that_waits_finds_the_new_receiver_and_lets_old_promises_go(stand: Stand) -> None:
    """The new receiver promises them again: kept, they would be drawn twice."""
    seen = [pair for _ in range(5) for pair in stand.take()]
    stand.noted(20)
    stand.receiver.kill()
    epoch = stand.feed._line._epoch
    stand.receiver.start()

    def greeted() -> bool:
        stand.feed.stock(0.01)
        return stand.feed._line._epoch != epoch

    wait_for(greeted, what="the greeting of the new receiver")
    while len(seen) < len(EVERYTHING):
        seen += stand.take()
    assert sorted(seen) == EVERYTHING


def test_every_sample_is_drawn_once_over_a_restart_of_the_rank(stand: Stand) -> None:
    """The new rank is promised what the old one was, and had not taken."""
    seen = [pair for _ in range(5) for pair in stand.take()]
    stand.noted(20)
    settings = stand.receiver.settings
    stand.feed.close()
    stand.feed = ShardFeed(
        FeedSettings("0", settings.folder, settings.feed, 4, {"u": 1}, patience_s=20.0)
    )
    while len(seen) < len(EVERYTHING):
        seen += stand.take()
    assert sorted(seen) == EVERYTHING


def test_going_back_to_a_snapshot_draws_again_what_came_after_it(stand: Stand) -> None:
    covered = [pair for _ in range(3) for pair in stand.take()]
    stand.feed.snapshot(3)
    lost = [pair for _ in range(4) for pair in stand.take()]
    stand.feed.restore(3)
    stand.batch = 3
    again: list[tuple[int, int]] = []
    while len(again) + len(covered) < len(EVERYTHING):
        again += stand.take()
    assert sorted(covered + again) == EVERYTHING
    assert set(lost) <= set(again)


def test_a_receiver_that_is_only_slow_loses_no_promise(stand: Stand) -> None:
    seen = [pair for _ in range(3) for pair in stand.take()]
    stand.noted(12)

    def here() -> bool:
        stand.feed.stock(0.01)
        return len(stand.feed._line.ahead) >= 2

    wait_for(here, what="two batches")
    process = stand.receiver.process
    os.kill(process.pid, signal.SIGSTOP)
    seen += [pair for _ in range(2) for pair in stand.take()]  # were here already
    os.kill(process.pid, signal.SIGCONT)
    while len(seen) < len(EVERYTHING):
        seen += stand.take()
    assert sorted(seen) == EVERYTHING
