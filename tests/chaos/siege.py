"""A campaign under fault after fault: what is done to it, and how long it takes to recover.

Recovered is a run when everything that was killed is there again, under new process ids, and then
both a segment was admitted and a batch trained on. Halts and disturbances of the network last for
a while by themselves; the time to recover is counted from their end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from faults import KINDS, NETWORKED, Injury, alive
from network import Network
from whole import Run, worker_pids

PAIRED = 0.25  # share of strikes that are two faults at once
RECOVERY_S = 120.0  # more than that is not survived
GAP_S = (0.5, 3.0)
START_S = 240.0  # Ray takes its time on a busy machine


@dataclass(frozen=True)
class Recovery:
    """What one strike did."""

    faults: tuple[str, ...]
    victims: tuple[str, ...]
    seconds: float


def plan(n: int, rng: random.Random, kinds: Sequence[str] = tuple(KINDS)) -> list[tuple[str, ...]]:
    """n faults in strikes of one or two, every kind about equally often."""
    queue: list[str] = []
    while len(queue) < n:
        queue += rng.sample(kinds, len(kinds))
    queue = queue[:n]
    strikes = []
    while queue:
        first = queue.pop()
        second = queue[-1] if queue and rng.random() < PAIRED else None
        networked = first in NETWORKED and second in NETWORKED
        if second is None or second == first or networked:
            strikes.append((first,))
        else:
            strikes.append((first, queue.pop()))
    return strikes


class Siege:
    """Strikes one run after the other, from one seed; gap_s: from a recovery to the next strike."""

    def __init__(
        self,
        run: Run,
        rng: random.Random,
        network: Network,
        gap_s: tuple[float, float] = GAP_S,
    ) -> None:
        self._run, self._rng, self._network = run, rng, network
        self._gap_s = gap_s
        self._workers = 0  # solver processes of the undisturbed run
        self.recoveries: list[Recovery] = []

    def lay(self, strikes: Iterable[tuple[str, ...]]) -> None:
        """All of them; raises AssertionError when the run does not recover from one."""
        self._run.wait_for(lambda: self._run.batches() > 10, START_S)
        self._workers = len(worker_pids(self._run))
        for kinds in strikes:
            time.sleep(self._rng.uniform(*self._gap_s))
            assert self._run.process.poll() is None, "The run ended before its last fault."
            self.recoveries.append(self._strike(kinds))

    def _strike(self, kinds: tuple[str, ...]) -> Recovery:
        run = self._run
        before = run.pids()
        injuries = [KINDS[kind](run, self._rng, self._network) for kind in kinds]
        victims = tuple(f"{injury.kind} {injury.victim}".strip() for injury in injuries)
        ended = max(time.monotonic(), *(injury.ends_s for injury in injuries))
        while not all(injury.over for injury in injuries):
            self._still_there(victims)
            time.sleep(0.1)
        for injury in injuries:
            injury.heal()
        self._wait(lambda: self._replaced(injuries, before), ended, victims)
        admitted, batches = self._admitted(), run.batches()
        self._wait(lambda: self._admitted() > admitted and run.batches() > batches, ended, victims)
        return Recovery(kinds, victims, time.monotonic() - ended)

    def _replaced(self, injuries: Sequence[Injury], before: dict[str, int]) -> bool:
        """Whether what was killed is gone and everybody has someone in his place."""
        if any(alive(pid) for injury in injuries for pid in injury.gone):
            return False
        now = self._run.pids()
        there = all(name in now and alive(now[name]) for name in before)
        return there and len(worker_pids(self._run)) >= self._workers

    def _wait(self, condition: Callable[[], bool], since: float, victims: tuple[str, ...]) -> None:
        while not condition():
            self._still_there(victims)
            waited = time.monotonic() - since
            assert waited < RECOVERY_S, (
                f"Not recovered {waited:.0f} s after {' and '.join(victims)}; "
                f"{self._run.pids()}\n{self._run.output}"
            )
            time.sleep(0.1)

    def _still_there(self, victims: tuple[str, ...]) -> None:
        assert self._run.process.poll() is None, (
            f"The run ended after {' and '.join(victims)}:\n{self._run.output}"
        )

    def _admitted(self) -> int:
        """Bytes of the journals of admissions, which only grow."""
        return sum(path.stat().st_size for path in self._run.folder.glob("admissions-*.bin"))
