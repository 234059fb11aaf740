"""What a launcher is: the contract that local processes, SLURM and containers all fulfil."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Agency:
    """What every agent of a campaign is started with.

    command: of one worker, mpirun included. environment: added to the agent's own, and so to the
    worker's. python: an interpreter that can import penstock; it need not be the solver's.
    """

    coordinator: str
    command: tuple[str, ...]
    log_dir: Path
    python: str
    environment: Mapping[str, str] = field(default_factory=dict)
    beat_s: float = 1.0
    silence_s: float = 15.0
    coordinator_patience_s: float = 120.0

    def agent_command(self, agent: str) -> list[str]:
        """The command line of one agent."""
        return [
            self.python, "-m", "penstock.agent",
            "--coordinator", self.coordinator,
            "--agent", agent,
            "--log-dir", str(self.log_dir),
            "--beat-s", str(self.beat_s),
            "--silence-s", str(self.silence_s),
            "--coordinator-patience-s", str(self.coordinator_patience_s),
        ]  # fmt: skip


@dataclass(frozen=True)
class Death:
    """An agent that ended without having been told to; `restarted` says whether it lives again."""

    agent: str
    exit_code: int
    message: str
    restarted: bool


class Launcher(Protocol):
    """Starts `n` agents, restarts those that die, stops them all; nothing is left after `stop`."""

    def start(self, n: int) -> None:
        """Start n more agents; returns at once."""
        ...

    def poll(self) -> list[Death]:
        """Look after the agents; call it about once a second. Returns who died since the last."""
        ...

    @property
    def alive(self) -> int:
        """How many agents are there, as of the last `poll`."""
        ...

    def stop(self, timeout_s: float) -> None:
        """End all agents, and with them their workers, by force after `timeout_s`; repeatable."""
        ...
