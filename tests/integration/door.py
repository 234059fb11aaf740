"""A receiver and a scripted coordinator, at whose port hand-made parts knock."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from hand_made import HandMade
from scripted import CAMPAIGN, ReceiverProcess, ScriptedCoordinator, wait_for

NUMBERS = itertools.count(1, 2)


class Door:
    """One receiver for all tests of this file: each leaves it as able as it was."""

    def __init__(self, folder: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.coordinator = ScriptedCoordinator({}, [])
        self.coordinator.start()
        self.receiver = ReceiverProcess(
            folder, self.coordinator.address, slots=4096, max_steps=400, journal=str(folder / "j")
        )
        wait_for(lambda: "0" in self.coordinator.reports, what="the receiver")

    def peer(self, **more: int) -> HandMade:
        campaign = more.pop("campaign", CAMPAIGN)
        return HandMade(self.context, self.receiver.settings.address, campaign, **more)

    def counter(self, name: str) -> float:
        return float(self.coordinator.reports["0"]["counters"].get(name, 0))

    def refusal(self, simulation: int) -> dict[str, object]:
        """What the coordinator was told of the simulation."""
        found: list[dict[str, object]] = []

        def told() -> bool:
            entries = list(self.coordinator.refused)
            found.extend(e for e in entries if e["simulation"] == simulation)
            return bool(found)

        wait_for(told, what="the refusal")
        return found[0]

    def delivers(self, simulation: int) -> None:
        wait_for(lambda: simulation in self.coordinator.delivered, what=f"simulation {simulation}")

    def works(self) -> None:
        """A new part with a new simulation is served as ever."""
        simulation = next(NUMBERS)
        peer = self.peer()
        peer.run(simulation, simulation, 3)
        assert not peer.refused
        peer.close()

    def close(self) -> None:
        self.receiver.stop()
        self.coordinator.stop()
        self.context.destroy(linger=0)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    door = Door(tmp_path_factory.mktemp("door"))
    yield door
    door.close()


@pytest.fixture
def door(standing: Door) -> Iterator[Door]:
    yield standing
    assert standing.receiver.process.poll() is None, standing.receiver.log()
    standing.works()
