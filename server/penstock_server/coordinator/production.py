"""The books of simulations and leases: who has what, what is done, what is to be done again.

Pure; the state machine calls it. A simulation is always in exactly one state, and only its newest
lease may be open (running, refused, or ended and not yet confirmed).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from penstock_server.coordinator.plan import missing
from penstock_server.coordinator.records import (
    COMPLETED,
    ENDED,
    FAILED,
    PARTIAL,
    QUARANTINED,
    QUEUED,
    ROLES,
    RUNNING,
    SETTLED_STATES,
    Changes,
    Lease,
    Simulation,
    Standing,
)
from penstock_server.coordinator.settings import Rules

OPEN = frozenset({"running", "refused", "ended"})


class Production:
    """Everything about simulations and leases; what it changes goes to `changes`.

    `open` are the open leases by number. `retired` has, for each shard, the simulations that will
    never be worked on again though they are incomplete.
    """

    def __init__(
        self,
        rules: Rules,
        standing: Standing,
        changes: Changes,
        simulations: Iterable[Simulation],
        leases: Iterable[Lease] = (),
    ) -> None:
        self._rules = rules
        self._standing = standing
        self._changes = changes
        self.simulations: dict[int, Simulation] = {}
        self.leases: dict[int, Lease] = {lease.lease: lease for lease in leases}
        self.open: dict[int, Lease] = {}
        self.retired: dict[str, dict[int, None]] = {}  # ordered sets
        self.retried = 0
        self._counts: Counter[tuple[str, str]] = Counter()  # (role, state) -> simulations
        self._of_worker: dict[str, dict[int, Lease]] = {}  # open leases
        self._requeued: set[int] = set()
        self._queue: list[tuple[int, int]] = []  # (place of the role, id)
        for simulation in simulations:
            self._admit(simulation)
        for lease in self.leases.values():
            self._keep_or_drop(lease)

    # -- what is asked ---------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether nothing is left to do: all completed, given up, quarantined or replaced."""
        return sum(self.count(state) for state in SETTLED_STATES) == len(self.simulations)

    @property
    def queued(self) -> int:
        return self.count(QUEUED)

    def count(self, state: str, role: str | None = None) -> int:
        """How many simulations are in a state."""
        return sum(self._counts[name, state] for name in ROLES if role in (None, name))

    def planned(self, role: str) -> int:
        """How many simulations of a role there are, repeats under a new id included."""
        return sum(n for (name, _), n in self._counts.items() if name == role)

    def open_leases(self, worker: str) -> list[Lease]:
        """A worker's leases that would have to be done again if it were lost now."""
        return list(self._of_worker.get(worker, {}).values())

    def delivered(self, simulation: Simulation) -> bool:
        """Whether every shard of it has confirmed all its segments."""
        return all(shard in simulation.delivered for shard in simulation.shards)

    def superseded(self, shard: str) -> list[list[int]]:
        """[simulation, lease]: this lease and older ones are dead, with no newer one yet."""
        waiting = (self.simulations[number] for number in sorted(self._requeued))
        return [[sim.id, sim.lease] for sim in waiting if shard in sim.shards]

    # -- what happens ----------------------------------------------------------------------------

    def assign(self, worker: str, now: float) -> tuple[Simulation, Lease] | None:
        """The first simulation of the queue under a new lease; None when the queue is empty."""
        while self._queue:
            simulation = self.simulations[heapq.heappop(self._queue)[1]]
            if simulation.state == QUEUED:
                break
        else:
            return None
        simulation.attempts += 1
        self.retried += simulation.attempts == 2
        lease = Lease(
            self._standing.next_lease, simulation.id, worker, simulation.attempts,
            progressed_at=now,
        )  # fmt: skip
        self._standing.next_lease += 1
        self._changes.add(self._standing)
        simulation.lease = lease.lease
        self.leases[lease.lease] = lease
        self._move(simulation, RUNNING)
        self._set(lease, "running")
        return simulation, lease

    def end(self, lease: Lease, steps: int, now: float) -> None:
        """The worker says that it sent everything; the shards have the last word."""
        simulation = self.simulations[lease.simulation]
        simulation.steps = lease.steps = steps
        lease.progressed_at = now
        self._move(simulation, ENDED)
        self._set(lease, "ended")
        self._complete_if_delivered(simulation)

    def await_refusal(self, lease: Lease, now: float) -> None:
        """The worker says that a shard refused it; the shard's report will say why."""
        lease.progressed_at = now
        self._set(lease, "refused")

    def confirm(self, simulation: Simulation, shard: str, segments: int) -> None:
        """A shard has all its segments of a simulation; true whatever becomes of the attempt."""
        if simulation.delivered.get(shard) == segments or shard not in simulation.shards:
            return
        simulation.delivered[shard] = segments
        self._changes.add(simulation)
        self._complete_if_delivered(simulation)

    def fault(self, lease: Lease, reason: str, now: float) -> str:
        """An attempt failed by the solver's own fault; returns the simulation's new state."""
        simulation = self._close(lease, "failed", reason, now)
        simulation.faults += 1
        return self._again(simulation, reason, simulation.faults >= self._rules.max_attempts)

    def lose(self, lease: Lease, reason: str, now: float) -> str:
        """An attempt was lost without the solver's fault; returns the simulation's new state."""
        simulation = self._close(lease, "superseded", reason, now)
        if self.delivered(simulation):
            self._set(lease, "confirmed")
            self._complete(simulation)
            return COMPLETED
        simulation.losses += 1
        return self._again(simulation, reason, simulation.losses >= self._rules.max_losses)

    def quarantine(self, simulation: Simulation, reason: str, now: float) -> None:
        """Its data were refused for what they are; another attempt would give the same."""
        self._withdraw(simulation, reason, now)
        simulation.reason = reason
        self._move(simulation, QUARANTINED)

    def replace(self, simulation: Simulation, reason: str, now: float) -> Simulation:
        """The solver does not reproduce itself: what came stays, a new simulation is queued."""
        self._withdraw(simulation, reason, now)
        successor = Simulation(
            self._standing.next_simulation, simulation.role, dict(simulation.parameters),
            simulation.seed, list(simulation.shards), predecessor=simulation.id,
        )  # fmt: skip
        self._standing.next_simulation += 1
        simulation.reason, simulation.successor = reason, successor.id
        self._move(simulation, PARTIAL)
        self._admit(successor)
        self._changes.add(successor)
        self._changes.add(self._standing)
        return successor

    def give_up(self, simulation: Simulation, reason: str, now: float) -> None:
        """No further attempt, whatever the count says."""
        self._withdraw(simulation, reason, now)
        self._again(simulation, reason, last=True)

    def resume(
        self, settled: Mapping[int, Sequence[Sequence[int]]], done: Collection[int] = ()
    ) -> int:
        """After a resumption: queue what a durable checkpoint does not hold; returns how many."""
        queued = 0
        for simulation in list(self.simulations.values()):
            if simulation.state in (FAILED, QUARANTINED, PARTIAL):
                continue
            if simulation.id in done:
                if simulation.state != COMPLETED:
                    self._withdraw(simulation, "it stands in the data set", 0.0)
                    self._move(simulation, COMPLETED)
                continue
            ranges = settled.get(simulation.id, ())
            gaps = missing(ranges, simulation.segments)
            if simulation.state == COMPLETED and not gaps:
                continue
            self._withdraw(simulation, "the campaign was resumed", 0.0)
            simulation.wanted = gaps if ranges else None
            simulation.delivered = {}
            simulation.losses = 0
            self._move(simulation, QUEUED)
            queued += 1
        return queued

    # -- how it is written down ------------------------------------------------------------------

    def _admit(self, simulation: Simulation) -> None:
        self.simulations[simulation.id] = simulation
        self._counts[simulation.role, simulation.state] += 1
        self.retried += simulation.attempts > 1
        self._note_state(simulation)

    def _move(self, simulation: Simulation, state: str) -> None:
        self._counts[simulation.role, simulation.state] -= 1
        self._counts[simulation.role, state] += 1
        simulation.state = state
        self._changes.add(simulation)
        self._note_state(simulation)

    def _note_state(self, simulation: Simulation) -> None:
        self._requeued.discard(simulation.id)
        if simulation.state == QUEUED:
            heapq.heappush(self._queue, (ROLES.index(simulation.role), simulation.id))
            if simulation.lease:
                self._requeued.add(simulation.id)
        elif simulation.state in (FAILED, QUARANTINED, PARTIAL):
            for shard in simulation.shards:
                self.retired.setdefault(shard, {})[simulation.id] = None

    def _set(self, lease: Lease, state: str) -> None:
        lease.state = state
        self._changes.add(lease)
        self._keep_or_drop(lease)

    def _keep_or_drop(self, lease: Lease) -> None:
        if lease.state in OPEN:
            self.open[lease.lease] = lease
            self._of_worker.setdefault(lease.worker, {})[lease.lease] = lease
        else:
            self.open.pop(lease.lease, None)
            self._of_worker.get(lease.worker, {}).pop(lease.lease, None)

    def _close(self, lease: Lease, state: str, reason: str, now: float) -> Simulation:
        lease.reason, lease.progressed_at = reason, now
        self._set(lease, state)
        return self.simulations[lease.simulation]

    def _withdraw(self, simulation: Simulation, reason: str, now: float) -> None:
        lease = self.leases.get(simulation.lease)
        if lease is not None and lease.state in OPEN:
            self._close(lease, "superseded", reason, now)

    def _again(self, simulation: Simulation, reason: str, last: bool) -> str:
        simulation.reason = reason
        self._move(simulation, FAILED if last else QUEUED)
        return simulation.state

    def _complete_if_delivered(self, simulation: Simulation) -> None:
        if simulation.state == ENDED and self.delivered(simulation):
            self._set(self.leases[simulation.lease], "confirmed")
            self._complete(simulation)

    def _complete(self, simulation: Simulation) -> None:
        simulation.segments = max(simulation.segments or 0, sum(simulation.delivered.values()))
        simulation.reason, simulation.wanted = "", None
        self._move(simulation, COMPLETED)
