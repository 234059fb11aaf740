"""Agents as processes on this machine; the launcher of the embedded default."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from penstock_server.launch.launcher import Agency, Death

RESTARTS = 5  # of one agent in a row, each within SETTLED_S of its start; then it is left dead
SETTLED_S = 60.0
PAUSE_S = 1.0  # before the first restart of a row, doubled each time
LEFT = 0  # the exit code of an agent that the coordinator sent home


class LocalLauncher:
    """A Launcher of local processes.

    The agents die with the thread that called `start`, so call it from the main one. They are in
    sessions of their own: Ctrl-C reaches the supervisor alone, which then stops them in order.
    """

    def __init__(self, agency: Agency, clock: Callable[[], float] = time.monotonic) -> None:
        self._agency = agency
        self._clock = clock
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._deaths: dict[str, int] = {}  # in a row
        self._started_s: dict[str, float] = {}
        self._due: dict[str, float] = {}  # dead agents -> when they are started again
        self._stopped = False

    def start(self, n: int) -> None:
        """Start n more agents; returns at once."""
        first = len(self._deaths) + 1
        for number in range(first, first + n):
            self._deaths[f"a{number}"] = 0
            self._spawn(f"a{number}")

    def poll(self) -> list[Death]:
        """Restart what is due; returns the agents that died since the last call."""
        deaths = []
        for agent, process in list(self._processes.items()):
            code = process.poll()
            if code is not None:
                del self._processes[agent]
                if code != LEFT and not self._stopped:
                    deaths.append(self._bury(agent, code))
        for agent, due in list(self._due.items()):
            if self._clock() >= due and not self._stopped:
                del self._due[agent]
                self._spawn(agent)
        return deaths

    @property
    def alive(self) -> int:
        return len(self._processes)

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the living agents."""
        return {agent: process.pid for agent, process in self._processes.items()}

    def stop(self, timeout_s: float) -> None:
        """End all agents; each ends its worker's processes. May be called twice."""
        self._stopped = True
        for process in self._processes.values():
            _signal(process, signal.SIGTERM)
        deadline = self._clock() + timeout_s
        for process in self._processes.values():
            try:
                process.wait(max(0.0, deadline - self._clock()))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)  # its keeper then ends the worker's processes
                process.wait()
        self._processes.clear()
        self._due.clear()

    def _spawn(self, agent: str) -> None:
        command = [*self._agency.agent_command(agent), "--die-with-parent", "--"]
        self._agency.log_dir.mkdir(parents=True, exist_ok=True)
        with (self._agency.log_dir / f"{agent}.agent.log").open("ab") as log:
            self._processes[agent] = subprocess.Popen(
                [*command, *self._agency.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._agency.environment},
                start_new_session=True,
            )
        self._started_s[agent] = self._clock()

    def _bury(self, agent: str, code: int) -> Death:
        lived_s = self._clock() - self._started_s[agent]
        self._deaths[agent] = 1 if lived_s > SETTLED_S else self._deaths[agent] + 1
        again = self._deaths[agent] <= RESTARTS
        if again:
            self._due[agent] = self._clock() + PAUSE_S * 2 ** (self._deaths[agent] - 1)
        future = (
            "it is started again"
            if again
            else f"it died {RESTARTS + 1} times in a row and stays dead"
        )
        log = self._agency.log_dir / f"{agent}.agent.log"
        message = f"The agent {agent} ended with exit code {code}; {future}. Its log is {log}."
        return Death(agent, code, message, again)


def mpi_command(command: Sequence[str], ranks: int) -> list[str]:
    """The command on `ranks` MPI ranks; unchanged for one.

    Workers share the cores of the machine, so ranks are not bound to cores: Open MPI would bind
    those of every worker to the same first ones.
    """
    if ranks == 1:
        return list(command)
    mpirun = shutil.which("mpirun") or "mpirun"
    return [mpirun, "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *command]


def mpi_environment() -> dict[str, str]:
    """What Open MPI and the solvers' libraries want: leave to run as root, one thread a rank."""
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        environment["OMPI_ALLOW_RUN_AS_ROOT"] = "1"
        environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return environment


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
