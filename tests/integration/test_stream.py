"""The way of a step: real clients, a real receiver process and a real feed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import ReceiverProcess, ScriptedCoordinator, assignment, wait_for, welcome

import penstock
from penstock_server.feed import FeedSettings, ShardFeed

pytestmark = pytest.mark.timeout(60)


def content(simulation: int, step: int, shape: tuple[int, ...] = (8, 6)) -> np.ndarray:
    n = int(np.prod(shape))
    return (1000 * simulation + step + np.arange(n) / n).astype("f4").reshape(shape)


class Stage:
    """A coordinator, its receivers and what has to be cleaned up."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tmp_path, self._patch = tmp_path, monkeypatch
        self.receivers: list[ReceiverProcess] = []
        self.coordinator: ScriptedCoordinator | None = None
        self.feeds: list[ShardFeed] = []

    def begin(self, simulations: list[int], shards: int = 1, **settings: Any) -> None:
        coordinator = ScriptedCoordinator({}, [])
        coordinator.start()
        self.coordinator = coordinator
        names = [str(i) for i in range(shards)]
        self.receivers = [
            ReceiverProcess(self.tmp_path, coordinator.address, name, **settings) for name in names
        ]
        coordinator.assignments = [assignment(s, names) for s in simulations]
        coordinator.welcome = welcome(self.receivers)
        wait_for(lambda: len(coordinator.reports) == shards, what="the receivers")
        self._patch.setenv("PENSTOCK_COORDINATOR", coordinator.address)
        self._patch.setenv("PENSTOCK_WORKER", "w0")

    def feed(self, shard: int = 0, **more: Any) -> ShardFeed:
        settings = self.receivers[shard].settings
        feed = ShardFeed(
            FeedSettings(
                settings.shard,
                settings.folder,
                settings.feed,
                batch_size=4,
                components={"u": 1, **dict.fromkeys(settings.inputs, 1)},
                patience_s=20.0,
                **more,
            )
        )
        self.feeds.append(feed)
        return feed

    def run_solver(self, steps: int = 5, parts: int = 1) -> None:
        """A solver in this process; with more parts the ranks are threads with a fake comm."""
        with penstock.connect() as link:
            for sim in link.simulations():
                for step in range(steps):
                    sim.send(0.1 * step, u=content(sim.id, step))

    def close(self) -> None:
        for feed in self.feeds:
            feed.close()
        for receiver in self.receivers:
            receiver.stop()
        if self.coordinator is not None:
            self.coordinator.stop()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(tmp_path, monkeypatch)
    yield stage
    stage.close()


def check(batch: Any) -> None:
    for i in range(len(batch)):
        for k, step in enumerate(batch.step[i].tolist()):
            expected = content(int(batch.simulation[i]), step)
            np.testing.assert_array_equal(batch.fields["u"][i, k].numpy(), expected)
            assert batch.t[i, k].item() == pytest.approx(0.1 * step)
        assert batch.parameters[i, 0].item() == float(batch.simulation[i])


def test_every_step_arrives_once_and_as_it_was_sent(stage: Stage) -> None:
    stage.begin(list(range(6)))
    feed = stage.feed()
    stage.run_solver(steps=5)
    coordinator = stage.coordinator
    assert coordinator is not None
    wait_for(lambda: coordinator.delivered == set(range(6)), what="the delivery")
    coordinator.orders["production"] = "over"
    feed.drain()
    wait_for(lambda: feed.stock(0.1).over)
    seen = []
    number = 0
    while feed.stock(0.5).ready:
        number += 1
        batch = feed.take(number)
        check(batch)
        seen += list(zip(batch.simulation.tolist(), batch.step[:, 0].tolist()))
    assert sorted(seen) == [(s, k) for s in range(6) for k in range(5)]
    stock = feed.stock(0.0)
    assert (stock.admitted, stock.unseen, stock.complete_simulations) == (30, 0, 6)


def test_a_full_reservoir_makes_the_sender_wait_until_a_snapshot(stage: Stage) -> None:
    stage.begin([0, 1, 2], slots=8, threshold=4)
    feed = stage.feed()
    solver = threading.Thread(target=stage.run_solver, kwargs={"steps": 6}, daemon=True)
    solver.start()
    wait_for(lambda: feed.stock(0.1).blocked, what="the reservoir to fill")
    assert feed.stock(0.0).admitted == 8
    batch = 0
    while solver.is_alive():
        stock = feed.stock(0.05)
        if stock.ready:
            batch += 1
            check(feed.take(batch))
        if stock.pressure or stock.blocked:
            feed.snapshot(batch)
    solver.join(10)
    assert stage.coordinator is not None
    wait_for(lambda: stage.coordinator.delivered == {0, 1, 2})
    assert feed.stock(0.1).admitted == 18


@pytest.mark.parametrize(
    ("window", "stride", "starts"),
    [
        (2, 1, [0, 1, 3, 4, 6, 7]),  # windows of 2 inside segments of 3; the tenth step is alone
        (2, 2, [0, 3, 6]),
    ],
)
def test_a_killed_receiver_comes_back_on_its_slab_and_loses_nothing(
    stage: Stage, window: int, stride: int, starts: list[int]
) -> None:
    stage.begin(list(range(8)), slots=128, segment_steps=3, window=window, stride=stride)
    solver = threading.Thread(target=stage.run_solver, kwargs={"steps": 10}, daemon=True)
    feed = stage.feed()
    receiver = stage.receivers[0]
    solver.start()
    for kills in range(3):
        wait_for(partial(lambda n: feed.stock(0.0).admitted > n, 5 * kills))
        receiver.kill()
        receiver.start()
    solver.join(30)
    assert not solver.is_alive()
    assert stage.coordinator is not None
    wait_for(lambda: stage.coordinator.delivered == set(range(8)), what="the delivery")
    stage.coordinator.orders["production"] = "over"
    feed.drain()
    wait_for(lambda: feed.stock(0.1).over)
    seen = []
    number = 0
    while feed.stock(1.0).ready:
        number += 1
        batch = feed.take(number)
        check(batch)
        assert (batch.step[:, 1] - batch.step[:, 0] == stride).all()
        seen += list(zip(batch.simulation.tolist(), batch.step[:, 0].tolist()))
    assert sorted(seen) == [(s, k) for s in range(8) for k in starts]


def test_two_shards_share_a_simulation_by_segments(stage: Stage) -> None:
    stage.begin([0, 1], shards=2)
    feeds = [stage.feed(0), stage.feed(1)]
    stage.run_solver(steps=7)
    assert stage.coordinator is not None
    wait_for(lambda: sum(f.stock(0.0).admitted for f in feeds) == 14)
    assert [f.stock(0.0).admitted for f in feeds] == [8, 6]


def test_a_field_that_is_not_finite_ends_its_simulation_alone(stage: Stage) -> None:
    stage.begin([0, 1, 2])
    with penstock.connect() as link:
        for sim in link.simulations():
            for step in range(4):
                u = content(sim.id, step)
                if (sim.id, step) == (1, 2):
                    u[3, 3] = np.nan
                sim.send(0.1 * step, u=u)
    coordinator = stage.coordinator
    assert coordinator is not None
    wait_for(lambda: coordinator.delivered == {0, 2} and bool(coordinator.refused))
    assert coordinator.refused[0]["simulation"] == 1
    assert coordinator.refused[0]["kind"] == "nan"
    assert "not finite at step 2" in coordinator.refused[0]["reason"]


def test_input_fields_come_with_every_sample(stage: Stage) -> None:
    stage.begin([0, 1], inputs={"k": {"shape": [3], "dtype": "float32"}}, order=["u", "k"], rows=66)
    feed = stage.feed()
    with penstock.connect() as link:
        for sim in link.simulations():
            sim.inputs(k=np.full(3, sim.id + 0.5))
            for step in range(4):
                sim.send(0.1 * step, u=content(sim.id, step))
    wait_for(lambda: feed.stock(0.1).ready == 4)
    batch = feed.take(1)
    check(batch)
    expected = batch.simulation.numpy()[:, None] + np.full((1, 3), 0.5)
    np.testing.assert_array_equal(batch.inputs["k"].numpy(), expected)


@pytest.mark.parametrize(
    ("demand", "kind", "reason"),
    [
        ({"ranges": {"u": [0.0, 3000.0]}}, "range", "the campaign allows 0 to 3000"),
        ({"check": "energy:bounded"}, "physics", "refused step 2: the energy is"),
    ],
)
def test_a_step_against_physics_ends_its_simulation_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, demand: dict[str, Any], kind: str, reason: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    stage.begin([0, 1, 2], **demand)
    with penstock.connect() as link:
        for sim in link.simulations():
            for step in range(4):
                factor = 5.0 if (sim.id, step) == (1, 2) else 1.0
                sim.send(0.1 * step, u=factor * content(sim.id, step))
    coordinator = stage.coordinator
    assert coordinator is not None
    wait_for(lambda: coordinator.delivered == {0, 2} and bool(coordinator.refused))
    (refused,) = coordinator.refused
    assert (refused["simulation"], refused["kind"], refused["step"]) == (1, kind, 2)
    assert reason in refused["reason"]
