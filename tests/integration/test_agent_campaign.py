"""Coordinator process, launcher, agents and workers together; the test plays receivers alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_boss import alive, descendants, wait_until

from penstock.control import Asker
from penstock_server.coordinator import Rules, Settings, Store, planned
from penstock_server.coordinator.records import Simulation
from penstock_server.launch import Agency, LocalLauncher, mpi_command

WORKER = str(Path(__file__).with_name("agent_worker.py"))
DEADLINE_S = 30.0


class Campaign:
    """A supervisor and its receivers, small enough to be seen through."""

    def __init__(self, folder: Path, train: int, command: list[str], agents: int = 2) -> None:
        self.folder = folder
        self.settings = Settings(
            address=f"tcp://127.0.0.1:{free_port()}",
            database=str(folder / "campaign.db"),
            campaign=5,
            name="test",
            run="run-1",
            fields={},
            stream={},
            shards=["0", "1"],
            simulations=planned(
                {"train": [{"x": float(n)} for n in range(train)]},
                campaign_seed=1,
                training_shards=["0", "1"],
                shards_per_simulation=2,
            ),
            rules=Rules(
                silence_s=2.0, start_deadline_s=20.0, step_deadline_s=20.0, max_attempts=3,
                retry_s=0.1,
            ),
        )  # fmt: skip
        self.settings.save(folder / "settings.json")
        self.process = self.start_coordinator()
        self.asker = Asker(self.settings.address, "test", resend_s=0.2)
        self.launcher = LocalLauncher(
            Agency(
                coordinator=self.settings.address,
                command=tuple(command),
                log_dir=folder / "logs",
                python=sys.executable,
                beat_s=0.2,
                silence_s=2.0,
                coordinator_patience_s=20.0,
            )
        )
        self.launcher.start(agents)
        self.confirmed: set[tuple[str, int]] = set()

    def start_coordinator(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable, "-m", "penstock_server.coordinator",
                "--settings", str(self.folder / "settings.json"),
            ]
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Reports for both shards, looks after agents, and returns the coordinator's status."""
        self.launcher.poll()
        ended = [
            [sim.id, sim.lease, 3]
            for sim in self.simulations()
            if sim.state in ("running", "ended") and sim.steps
        ]
        for shard in ("0", "1"):
            self.asker.ask("report", shard=shard, address="tcp://127.0.0.1:9", delivered=ended)
        return self.asker.ask("status", events_since=0)

    def simulations(self) -> list[Simulation]:
        store = Store(self.settings.database)
        try:
            return store.read(Simulation)
        finally:
            store.close()

    def until(self, met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            status = self.status()
            if met(status):
                return status
        raise AssertionError(f"it did not happen; {self.status()}")

    def stop(self) -> None:
        self.asker.ask("stop", why="the test is done")
        deadline = time.monotonic() + DEADLINE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self.launcher.poll()
            for shard in ("0", "1"):
                self.asker.post("report", shard=shard, address="tcp://127.0.0.1:9")
                self.asker.poll(0.1)

    def close(self) -> None:
        self.launcher.stop(5.0)
        self.process.kill()
        self.process.wait()
        self.asker.close()


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Callable[..., Campaign]]:
    made: list[Campaign] = []

    def make(train: int, *command: str, agents: int = 2) -> Campaign:
        made.append(Campaign(tmp_path, train, list(command), agents))
        return made[-1]

    yield make
    for one in made:
        one.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_campaign_runs_and_everybody_leaves(campaign: Callable[..., Campaign]) -> None:
    made = campaign(20, sys.executable, WORKER, "many")
    status = made.until(lambda status: status["state"] == "over")
    assert status["simulations"]["completed"] == 20
    assert status["faults"] == []
    agents = [pid for agent in made.launcher.pids.values() for pid in (agent, *descendants(agent))]
    made.stop()
    assert made.process.returncode == 0
    made.launcher.poll()
    assert made.launcher.alive == 0
    wait_until(lambda: not any(map(alive, agents)), "no process is left")


def test_programs_that_run_one_simulation_are_started_again(
    campaign: Callable[..., Campaign],
) -> None:
    made = campaign(4, sys.executable, WORKER, "one")
    status = made.until(lambda status: status["state"] == "over")
    assert status["simulations"]["completed"] == 4
    assert status["simulations"]["retried"] == 0


def test_a_worker_an_agent_and_the_coordinator_killed_with_9_lose_nothing(
    campaign: Callable[..., Campaign], tmp_path: Path
) -> None:
    flag = tmp_path / "fast"
    script = f'test -e {flag} && mode=many || mode=slow; exec {sys.executable} {WORKER} "$mode"'
    made = campaign(6, "sh", "-c", script)
    made.until(lambda status: sum(w["simulation"] is not None for w in status["workers"]) == 2)
    first, second = made.launcher.pids.values()
    workers = {w["worker"]: w["pid"] for w in made.status()["workers"]}
    flag.touch()
    made.process.kill()
    made.process.wait()
    os.kill(first, signal.SIGKILL)
    for pid in descendants(second):
        if pid in workers.values():
            os.kill(pid, signal.SIGKILL)
    made.process = made.start_coordinator()
    status = made.until(lambda status: status["state"] == "over")
    assert status["simulations"]["completed"] == 6
    assert status["simulations"]["failed"] == 0
    assert [sim.state for sim in made.simulations()] == ["completed"] * 6


def test_a_command_that_cannot_work_ends_the_campaign_with_its_own_words(
    campaign: Callable[..., Campaign],
) -> None:
    made = campaign(3, sys.executable, "-c", "import no_such_module", agents=1)
    status = made.until(lambda status: status["state"] == "stopping")
    assert "No module named 'no_such_module'" in status["why"]
    made.stop()
    assert made.process.returncode == 0


def test_the_coordinator_leaves_when_its_parent_dies(tmp_path: Path) -> None:
    made = Campaign(tmp_path, 1, ["true"], agents=0)
    made.process.kill()
    made.process.wait()
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    command = [sys.executable, "-m", "penstock_server.coordinator", "--settings"]
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *command, str(tmp_path / "settings.json")],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    coordinator = int(parent.stdout.readline())
    made.asker.ask("status")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not alive(coordinator), "the coordinator has left")
    made.close()


def test_the_coordinator_refuses_nonsense_and_lives(campaign: Callable[..., Campaign]) -> None:
    made = campaign(1, "true", agents=0)
    assert "nonsense" in made.asker.ask("nonsense")["why"]
    assert "sequence" in made.asker.ask("next", worker="w1")["why"]
    assert made.asker.ask("status")["kind"] == "status"


def test_mpirun_is_put_in_front_of_a_parallel_command() -> None:
    assert mpi_command(["solve"], 1) == ["solve"]
    command = mpi_command(["solve"], 3)
    assert command[0].endswith("mpirun")
    assert command[-3:] == ["-n", "3", "solve"]
