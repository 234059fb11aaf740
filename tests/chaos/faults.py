"""Faults, and how each is brought about in a campaign under way.

A fault is a sudden end (SIGKILL), a halt (SIGSTOP, SIGCONT later) or a disturbed network. `strike`
does it and gives an Injury, which knows when the fault is over and whether what it hit is back.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from network import Network
from whole import Run, children_of, worker_pids

HALT_S = 30.0
NETWORK_S = 20.0
LOSS = 0.1


@dataclass
class Injury:
    """One fault that was brought about."""

    kind: str
    victim: str
    gone: list[int] = field(default_factory=list)  # process ids that have to be replaced
    ends_s: float = 0.0  # time.monotonic() at which the disturbance is over
    heal: Callable[[], None] = lambda: None  # called then

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.ends_s


Strike = Callable[[Run, random.Random, Network], Injury]


def alive(pid: int) -> bool:
    """Whether there is such a process, zombies excluded."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end(pid: int) -> list[int]:
    """SIGKILL; the process may have ended by itself."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return []
    return [pid]


def mpi_rank(run: Run, rng: random.Random, _: Network) -> Injury:
    """One process of one solver."""
    found = worker_pids(run)
    pid = rng.choice(found) if found else 0
    return Injury("mpi rank", f"process {pid}", end(pid) if pid else [])


def worker(run: Run, rng: random.Random, _: Network) -> Injury:
    """All processes of one worker at once, mpirun with them."""
    agent, pid = rng.choice(agents(run))
    family = [child for child in children_of(pid) if "keeper" not in title(child)]
    return Injury("worker", f"of {agent}", [gone for child in family for gone in end(child)])


def agent(run: Run, rng: random.Random, _: Network) -> Injury:
    name, pid = rng.choice(agents(run))
    return Injury("agent", name, end(pid))


def server(kind: str, prefix: str) -> Strike:
    """One of the processes whose names begin like this."""

    def strike(run: Run, rng: random.Random, _: Network) -> Injury:
        name, pid = rng.choice(named(run, prefix))
        return Injury(kind, name, end(pid))

    return strike


def halt(run: Run, rng: random.Random, _: Network) -> Injury:
    """Any process but the supervisor and the agents' keepers stands still for HALT_S."""
    victims = [*named(run, ""), *((f"solver {pid}", pid) for pid in worker_pids(run))]
    name, pid = rng.choice(victims)

    def go_on() -> None:
        if alive(pid):
            os.kill(pid, signal.SIGCONT)

    if alive(pid):
        os.kill(pid, signal.SIGSTOP)
    return Injury("halt", name, ends_s=time.monotonic() + HALT_S, heal=go_on)


def cut(run: Run, _: random.Random, network: Network) -> Injury:
    """Nothing passes between the workers and the server."""
    network.disturb(ports(run))
    return Injury("cut", "", ends_s=time.monotonic() + NETWORK_S, heal=network.mend)


def loss(run: Run, _: random.Random, network: Network) -> Injury:
    """Packets between the workers and the server are lost at random."""
    network.disturb(ports(run), LOSS)
    return Injury("loss", f"{LOSS:.0%}", ends_s=time.monotonic() + NETWORK_S, heal=network.mend)


KINDS: dict[str, Strike] = {
    "mpi rank": mpi_rank,
    "worker": worker,
    "agent": agent,
    "rank": server("rank", "rank-"),
    "receiver": server("receiver", "receiver-"),
    "coordinator": server("coordinator", "coordinator"),
    "halt": halt,
    "cut": cut,
    "loss": loss,
}
NETWORKED = ("cut", "loss")


def agents(run: Run) -> list[tuple[str, int]]:
    """The living ones."""
    return [pair for pair in named(run, "a") if pair[0][1:].isdecimal()]


def named(run: Run, prefix: str) -> list[tuple[str, int]]:
    """Living processes of the run by name; waits for one while all are being replaced."""
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        found = [(n, p) for n, p in sorted(run.pids().items()) if n.startswith(prefix) and alive(p)]
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"No process {prefix}* came back within 30 s:\n{run.output}")


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def ports(run: Run) -> list[int]:
    """Where workers and agents talk to the server."""
    found = []
    for path in run.folder.joinpath("settings").glob("receiver-*.json"):
        told = json.loads(path.read_text())
        found += [told["address"], told["coordinator"]]
    return sorted({int(address.rpartition(":")[2]) for address in found})
