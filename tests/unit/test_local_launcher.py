"""When a dead agent is started again, by a clock of the test's own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from penstock_server.launch import Agency, LocalLauncher
from penstock_server.launch.launcher import Death
from penstock_server.launch.local import RESTARTS, SETTLED_S


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Agents:
    """One agent that ends at once with exit code 1."""

    def __init__(self, logs: Path) -> None:
        self.clock = Clock()
        agency = Agency(
            coordinator="tcp://127.0.0.1:9", command=("true",), log_dir=logs, python="/bin/false"
        )
        self.launcher = LocalLauncher(agency, self.clock)
        self.launcher.start(1)

    def die(self, after_s: float) -> Death:
        """The next death, which is noticed so long after the agent's start."""
        pid = self.launcher.pids["a1"]
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        self.clock.now += after_s
        (death,) = self.launcher.poll()
        return death

    def come_back(self) -> None:
        """Lets the longest pause pass."""
        self.clock.now += 2.0**RESTARTS
        assert self.launcher.poll() == []


@pytest.fixture
def agents(tmp_path: Path) -> Agents:
    return Agents(tmp_path)


def test_an_agent_that_dies_in_a_row_stays_dead(agents: Agents) -> None:
    for _ in range(RESTARTS):
        assert "it is started again" in agents.die(after_s=1.0).message
        agents.come_back()
    assert "stays dead" in agents.die(after_s=1.0).message
    agents.come_back()
    assert agents.launcher.alive == 0


def test_an_agent_that_lived_long_is_started_again_however_often(agents: Agents) -> None:
    for _ in range(2 * RESTARTS):
        assert "it is started again" in agents.die(after_s=SETTLED_S + 1.0).message
        agents.come_back()
    assert agents.launcher.alive == 1


def test_the_pause_before_a_restart_doubles_in_a_row(agents: Agents) -> None:
    for pause in (1.0, 2.0, 4.0):
        agents.die(after_s=0.0)
        agents.clock.now += pause - 0.1
        assert agents.launcher.poll() == []
        assert agents.launcher.alive == 0
        agents.clock.now += 0.2
        assert agents.launcher.poll() == []
        assert agents.launcher.alive == 1
