"""What a wrapped program writes arrives in the reservoir as it was computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scripted import ReceiverProcess, ScriptedCoordinator, assignment, wait_for, welcome
from wrapped import FIELD, GOOD, SLOW, Wrapper, content

from penstock.processes import processes
from penstock_server.feed import FeedSettings, ShardFeed

pytestmark = pytest.mark.timeout(90)


class Stage:
    """A coordinator, a receiver with its feed, and a wrapper as their worker."""

    def __init__(self, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self.coordinator = ScriptedCoordinator({}, [])
        self.coordinator.start()
        self.wrapper: Wrapper | None = None
        self.feed: ShardFeed | None = None
        self._receiver: ReceiverProcess | None = None

    def begin(self, simulations: list[int], **settings: int) -> ShardFeed:
        self._receiver = ReceiverProcess(self._tmp_path, self.coordinator.address, **settings)
        self.coordinator.assignments = [assignment(s, ["0"]) for s in simulations]
        self.coordinator.welcome = welcome([self._receiver])
        wait_for(lambda: bool(self.coordinator.reports), what="the receiver")
        told = self._receiver.settings
        self.feed = ShardFeed(
            FeedSettings(
                told.shard, told.folder, told.feed, batch_size=4, components={"u": 1},
                patience_s=20.0,
            )
        )  # fmt: skip
        return self.feed

    def wrap(self, body: str, *options: str, steps: int) -> Wrapper:
        environment = {
            "PENSTOCK_COORDINATOR": self.coordinator.address,
            "PENSTOCK_WORKER": "w0",
        }
        self.wrapper = Wrapper(
            self._tmp_path, body, *(options or FIELD), steps=steps, environment=environment
        )
        return self.wrapper

    def outcomes(self) -> dict[int, tuple[str, str]]:
        """simulation -> outcome and reason, as the worker told them."""
        told = [r["previous"] for r in self.coordinator.requests if r.get("previous")]
        return {p["simulation"]: (p["outcome"], p["reason"]) for p in told}

    def drain(self) -> list[tuple[int, int]]:
        """Takes everything that was admitted, checks its values; (simulation, step), sorted."""
        assert self.feed is not None
        self.coordinator.orders["production"] = "over"
        self.feed.drain()
        wait_for(lambda: self.feed is not None and self.feed.stock(0.1).over)
        seen: list[tuple[int, int]] = []
        number = 0
        while self.feed.stock(0.5).ready:
            number += 1
            batch = self.feed.take(number)
            for i, simulation in enumerate(batch.simulation.tolist()):
                step = int(batch.step[i, 0])
                expected = content(simulation, step)
                np.testing.assert_array_equal(batch.fields["u"][i, 0].numpy(), expected)
                assert batch.t[i, 0].item() == pytest.approx(0.5 * step)
                seen.append((simulation, step))
        return sorted(seen)

    def close(self) -> None:
        if self.wrapper is not None:
            self.wrapper.stop()
        if self.feed is not None:
            self.feed.close()
        if self._receiver is not None:
            self._receiver.stop()
        self.coordinator.stop()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def test_a_slow_writer_is_never_read_too_early(stage: Stage) -> None:
    stage.begin([3, 4])
    wrapper = stage.wrap(SLOW, *FIELD, "--dt", "0.5", "--steps", "12", steps=12)
    assert wrapper.finish() == 0, wrapper.output
    assert stage.drain() == [(s, k) for s in (3, 4) for k in range(12)]
    assert stage.outcomes() == {3: ("ended", ""), 4: ("ended", "")}
    assert not wrapper.folders()


def test_a_file_with_all_steps_arrives_step_by_step(stage: Stage) -> None:
    stage.begin([3])
    body = """
np.save("all.npy", np.stack([content(k) for k in range(n_steps)]))
np.savetxt("times.csv", 0.5 * np.arange(n_steps))
"""
    wrapper = stage.wrap(body, "--field", "u=all.npy", "--times", "times.csv", steps=6)
    assert wrapper.finish() == 0, wrapper.output
    assert stage.drain() == [(3, k) for k in range(6)]


def test_a_simulation_that_fails_is_told_and_the_next_one_goes_on(stage: Stage) -> None:
    stage.begin([3, 4, 5])
    body = "if simulation == 4: sys.exit('It diverged.')" + GOOD
    wrapper = stage.wrap(body, *FIELD, "--dt", "0.5", steps=3)
    assert wrapper.finish() == 0, wrapper.output
    outcomes = stage.outcomes()
    assert outcomes[3] == outcomes[5] == ("ended", "")
    assert outcomes[4][0] == "failed"
    assert outcomes[4][1].endswith("ended by exit code 1:\nIt diverged.")
    assert stage.drain() == [(s, k) for s in (3, 5) for k in range(3)]


def test_what_the_server_refuses_ends_the_program(stage: Stage) -> None:
    stage.begin([3, 4])
    body = (
        """
if simulation == 3:
    np.save("out_0.npy", np.full((8, 6), np.nan))
    np.save("out_1.npy", content(1))
    time.sleep(1000)
"""
        + GOOD
    )
    wrapper = stage.wrap(body, *FIELD, "--dt", "0.5", steps=3)
    assert wrapper.finish() == 0, wrapper.output
    outcomes = stage.outcomes()
    assert outcomes[3][0] == "refused"
    assert outcomes[4] == ("ended", "")
    assert stage.drain() == [(4, k) for k in range(3)]


def test_a_full_reservoir_halts_a_program_that_fills_the_memory(stage: Stage) -> None:
    feed = stage.begin([3], slots=8, threshold=4)
    # A step has 320 bytes, which take a page of 4 kB.
    body = GOOD.replace("\n    np", "\n    time.sleep(0.02)\n    np")
    wrapper = stage.wrap(body, *FIELD, "--dt", "0.5", "--room", "80kB", steps=60)

    def halted() -> bool:
        table = processes().values()
        return any(p.parent == wrapper.process.pid and p.state == "T" for p in table)

    wait_for(halted, 40.0, "the program to be halted")
    files = [path for folder in wrapper.folders() for path in folder.glob("*/out_*.npy")]
    assert 20 <= len(files) < 50
    batch = 0
    while wrapper.process.poll() is None:
        stock = feed.stock(0.05)
        if stock.ready:
            batch += 1
            feed.take(batch)
        if stock.pressure or stock.blocked:
            feed.snapshot(batch)
    assert wrapper.finish() == 0, wrapper.output
    wait_for(lambda: stage.coordinator.delivered == {3}, what="the delivery")
    assert feed.stock(0.1).admitted == 60
    assert stage.outcomes() == {3: ("ended", "")}
    assert not wrapper.folders()
