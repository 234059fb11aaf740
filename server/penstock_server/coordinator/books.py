"""All that the coordinator knows, in memory; the parts of the state machine share one of these."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field as data_field

from penstock_server.coordinator.journal import EVENTS, FAULTS, Journal
from penstock_server.coordinator.production import Production
from penstock_server.coordinator.records import (
    COMPLETED,
    ENDED,
    FAILED,
    QUARANTINED,
    QUEUED,
    Agent,
    Changes,
    Entry,
    Lease,
    Record,
    Shard,
    Simulation,
    Standing,
    Worker,
)
from penstock_server.coordinator.settings import Settings
from penstock_server.coordinator.worker_time import WorkerTime, activity


@dataclass
class Saved:
    """What an earlier coordinator of this campaign wrote down."""

    standing: Standing
    simulations: list[Simulation]
    leases: list[Lease]
    workers: list[Worker]
    agents: list[Agent]
    shards: list[Shard]
    entries: list[Entry] = data_field(default_factory=list)


class Books:
    """Made anew from the settings, or from what was saved; `now` is the time of the last event."""

    def __init__(self, settings: Settings, saved: Saved | None, now: float) -> None:
        self.settings = settings
        self.rules = settings.rules
        self.now = now
        self.over_since = now
        self.changes = Changes()
        self.workers: dict[str, Worker] = {}
        self.present: dict[str, Worker] = {}  # those of them that are not gone
        self.agents: dict[str, Agent] = {}
        self.shards = {shard: Shard(shard) for shard in settings.shards}
        self.worker_time = WorkerTime(now)  # of this process's life
        if saved is None:
            self._begin()
        else:
            self._reopen(saved)
        self._began_at = now - self.journal.seconds

    def _begin(self) -> None:
        states = {
            **dict.fromkeys(self.settings.done, COMPLETED),
            **dict.fromkeys(self.settings.absent, FAILED),
        }
        simulations = [
            Simulation(
                p.id,
                p.role,
                dict(p.parameters),
                p.seed,
                list(p.shards),
                state=states.get(p.id, QUEUED),
                reason="" if p.id not in self.settings.absent else "The data set lacks it.",
            )
            for p in self.settings.simulations
        ]
        self.standing = Standing(
            1,
            self.settings.run,
            next_simulation=1 + max(simulation.id for simulation in simulations),
            requested=len(simulations),
        )
        self._add_all([self.standing, *simulations, *self.shards.values()])
        self.journal = Journal(self.changes)
        self.production = Production(self.rules, self.standing, self.changes, simulations)

    def _reopen(self, saved: Saved) -> None:
        kept = {shard.shard: shard for shard in saved.shards}
        if kept.keys() != self.shards.keys():
            raise ValueError(
                f"The database {self.settings.database} is of a campaign with the shards "
                f"{', '.join(kept)}; {', '.join(self.shards)} came. Simulations keep their shards: "
                "resume with the same number of training ranks."
            )
        self.shards = kept
        self.standing = saved.standing
        self.journal = Journal(self.changes, saved.entries)
        self.production = Production(
            self.rules, self.standing, self.changes, saved.simulations, saved.leases
        )
        self.workers = {worker.worker: worker for worker in saved.workers}
        self.agents = {agent.agent: agent for agent in saved.agents}
        if self.standing.run != self.settings.run:
            self._resume()
        else:
            self.event("The coordinator was started again on its database.")
        # Nobody is blamed for the time in which nobody listened.
        for lease in self.production.open.values():
            lease.progressed_at = self.now
        for agent in self.agents.values():
            agent.heard_at = self.now
        for worker in self.workers.values():
            worker.heard_at = self.now
            if worker.state != "gone":
                self.present[worker.worker] = worker

    def _resume(self) -> None:
        """A new run of the same campaign: all processes of the one before are gone."""
        standing = self.standing
        standing.run, standing.state, standing.why = self.settings.run, "running", ""
        standing.leave, standing.training_stop, standing.dead_starts = False, "", 0
        for worker in self.workers.values():
            worker.state = "gone"
        for agent in self.agents.values():
            agent.state, agent.worker = "left", ""
        for shard in self.shards.values():
            shard.address = ""
        queued = self.production.resume(self.settings.settled, self.settings.done)
        self._add_all(
            [standing, *self.workers.values(), *self.agents.values(), *self.shards.values()]
        )
        self.event(f"The campaign was resumed; {queued} simulations are queued again.")

    def _add_all(self, records: Iterable[Record]) -> None:
        for record in records:
            self.changes.add(record)

    # -- what all parts do -----------------------------------------------------------------------

    def set_time(self, now: float) -> None:
        self.now = now
        self.journal.seconds = max(self.journal.seconds, now - self._began_at)

    def welcome(self, worker: Worker) -> Worker:
        """Enter a new worker."""
        worker.heard_at = self.now
        self.workers[worker.worker] = self.present[worker.worker] = worker
        self.changes.add(worker)
        return worker

    def look_at_workers(self) -> None:
        """Let the time since the last look go to what each worker is at."""
        self.worker_time.look(
            self.now,
            [
                activity(worker, self.production.open.get(worker.lease), self.shards)
                for worker in self.present.values()
            ],
        )

    def event(self, what: str) -> None:
        self.journal.note(EVENTS, {"what": what})

    def blame(self, lease: Lease, message: str, outcome: str, worker: Worker | None = None) -> None:
        """Write down what went wrong with an attempt, and how to see it again."""
        simulation = self.production.simulations[lease.simulation]
        worker = worker or self.workers.get(lease.worker)
        self.journal.note(
            FAULTS,
            {
                "simulation": simulation.id,
                "role": simulation.role,
                "attempt": lease.attempt,
                "lease": lease.lease,
                "inputs": simulation.parameters,
                "seed": simulation.seed,
                "worker": lease.worker,
                "log": worker.log if worker else "",
                "message": message,
                "stderr_tail": worker.tail if worker else "",
                "outcome": outcome,
                "next_command": self.repeat_command(simulation),
            },
        )

    def repeat_command(self, simulation: Simulation) -> str:
        """The command that runs one simulation alone; empty when the settings have none."""
        command = self.settings.repeat_command
        for key, value in (
            ("{simulation}", str(simulation.id)),
            ("{parameters}", shlex.quote(json.dumps(simulation.parameters))),
            ("{seed}", str(simulation.seed)),
        ):
            command = command.replace(key, value)
        return command

    def fail_lease(self, lease: Lease, message: str, worker: Worker | None = None) -> None:
        """An attempt failed by the solver's fault: count it, queue it again or give it up."""
        outcome = self.production.fault(lease, message, self.now)
        self.blame(lease, message, outcome, worker)

    def lose_lease(self, lease: Lease, why: str) -> None:
        """An attempt was lost through nobody's fault: queue it again."""
        number = lease.simulation
        outcome = self.production.lose(lease, why, self.now)
        if outcome == "failed":
            message = f"{why} This was attempt {lease.attempt}; too many were lost like this."
            self.blame(lease, message, outcome)
        else:
            self.event(f"Simulation {number} is {outcome} after its worker was lost: {why}")

    def stop(self, why: str) -> None:
        """Send everybody home."""
        if self.standing.state != "stopping":
            self.standing.state, self.standing.why = "stopping", why
            self.changes.add(self.standing)
            self.event(f"The campaign stops: {why}")

    def judge(self) -> None:
        """After every event: is production over, or hopeless?"""
        standing, production = self.standing, self.production
        if standing.state != "running":
            return
        completed = production.count(COMPLETED)
        given_up = production.count(FAILED) + production.count(QUARANTINED)
        if production.over and production.count(COMPLETED, "train") == 0:
            self.stop(f"all training simulations failed. {self._last_reason()}")
        elif production.over:
            standing.state = "over"
            self.over_since = self.now
            self.changes.add(standing)
            self.event("Production is over: no simulation is left to be run.")
        elif given_up >= self.rules.failed_at_first and not completed + production.count(ENDED):
            self.stop(
                f"the first {given_up} simulations failed and none was completed. "
                f"{self._last_reason()}"
            )

        elif self._too_many_refused():
            n = production.count(QUARANTINED, "train")
            self.stop(
                f"{n} training simulations were refused, more than admission.most_refused = "
                f"{self.rules.most_refused:g} of them allows. {self._last_reason()}"
            )

    def _too_many_refused(self) -> bool:
        share, production = self.rules.most_refused, self.production
        if share is None:
            return False
        return production.count(QUARANTINED, "train") > share * production.planned("train")

    def _last_reason(self) -> str:
        fault = self.journal.newest(FAULTS)
        if fault is None:
            return ""
        return (
            f"The last one, simulation {fault['simulation']}: {fault['message']} "
            f"Its log is {fault['log'] or 'unknown'}."
        )
