"""Real processes around a slab that is too small: slots are given away while batches name them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import ReceiverProcess, ScriptedCoordinator, assignment, wait_for, welcome

import penstock
from penstock_server.feed import FeedSettings, ShardFeed

pytestmark = pytest.mark.timeout(120)
SHAPE, STEPS, SIZE = [60, 50], 20, 4


class Producer(threading.Thread):
    """Sends as fast as it is let; every value of a step is 1000 x simulation + step."""

    def run(self) -> None:
        with penstock.connect() as link:
            for sim in link.simulations():
                for step in range(STEPS):
                    sim.send(0.1 * step, u=np.full(SHAPE, 1000 * sim.id + step))


@pytest.mark.parametrize("work_ahead", [False, True], ids=["alone", "ahead"])
def test_no_torn_sample_is_drawn_while_slots_are_recycled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work_ahead: bool
) -> None:
    coordinator = ScriptedCoordinator({}, [])
    coordinator.start()
    receiver = ReceiverProcess(tmp_path, coordinator.address, shape=SHAPE, slots=12)
    coordinator.assignments = [assignment(s, ["0"]) for s in range(40)]
    coordinator.welcome = welcome([receiver])
    wait_for(lambda: "0" in coordinator.reports, what="the receiver")
    monkeypatch.setenv("PENSTOCK_COORDINATOR", coordinator.address)
    monkeypatch.setenv("PENSTOCK_WORKER", "w0")
    producer = Producer(daemon=True)
    producer.start()
    told = receiver.settings
    feed = ShardFeed(
        FeedSettings(
            "0", told.folder, told.feed, SIZE, {"u": 1}, patience_s=20.0, work_ahead=work_ahead
        )
    )
    torn, cancel = [], feed._line.cancel

    def give_back(promise: Any) -> None:
        torn.append(promise)
        cancel(promise)

    monkeypatch.setattr(feed._line, "cancel", give_back)
    number, seen = 0, set()
    try:
        while producer.is_alive() or feed.stock(0.0).unseen:
            if not feed.stock(0.05).ready:
                if not producer.is_alive():
                    coordinator.orders["production"] = "over"
                continue
            number += 1
            batch = feed.take(number)
            for i, simulation in enumerate(batch.simulation.tolist()):
                step = int(batch.step[i, 0])
                assert (batch.fields["u"][i] == 1000 * simulation + step).all()
                assert batch.t[i, 0].item() == pytest.approx(0.1 * step)
                assert batch.parameters[i].tolist() == [float(simulation), 0.5]
                seen.add((simulation, step))
            feed.report()
            feed.snapshot(number)  # what was drawn may be evicted at once
        assert seen == {(s, k) for s in range(40) for k in range(STEPS)}
        assert torn, "no slot was given away under a batch: the test shows nothing"
    finally:
        feed.close()
        receiver.stop()
        coordinator.stop()
