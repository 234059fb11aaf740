"""A desk at which tests of the coordinator's state machine play all the other processes."""

from __future__ import annotations

import copy
from typing import Any

from penstock_server.coordinator import HELD_OUT, Rules, Settings, State, planned
from penstock_server.coordinator.books import Saved
from penstock_server.coordinator.records import (
    Agent,
    Entry,
    Lease,
    Record,
    Shard,
    Simulation,
    Standing,
    Worker,
)
from penstock_server.coordinator.requests import Tick, parse

TICK_S = 0.5


def settings(
    train: int = 3,
    validation: int = 0,
    shards: int = 1,
    shards_per_simulation: int = 4,
    run: str = "run-1",
    settled: dict[int, list[tuple[int, int]]] | None = None,
    **rules: Any,
) -> Settings:
    names = [str(number) for number in range(shards)]
    points = {
        "train": [{"T0": 100.0 + number} for number in range(train)],
        "validation": [{"T0": 300.0 + number} for number in range(validation)],
    }
    limits = {
        "silence_s": 15.0,
        "start_deadline_s": 60.0,
        "step_deadline_s": 100.0,
        "max_attempts": 3,
        **rules,
    }
    return Settings(
        address="tcp://127.0.0.1:1",
        database="",
        campaign=2**64 - 1,
        name="heat",
        run=run,
        fields={"temperature": {"shape": [4, 4]}},
        stream={"segment_steps": 1},
        shards=[*names, *([HELD_OUT] if validation else [])],
        simulations=planned(
            points,
            campaign_seed=1,
            training_shards=names,
            shards_per_simulation=shards_per_simulation,
        ),
        rules=Rules(**limits),
        repeat_command="penstock repeat {simulation} {parameters} {seed}",
        settled=settled or {},
    )


class Desk:
    """Speaks to a state machine in JSON, and keeps what it persists, as a database would."""

    def __init__(self, chosen: Settings | None = None, saved: Saved | None = None) -> None:
        self.settings = chosen or settings()
        self.now = 0.0
        self.rows: dict[tuple[str, Any], Record] = {}
        self.state = State(self.settings, saved, self.now)
        self._persist(self.state.unsaved())

    def say(self, kind: str, **body: Any) -> dict[str, Any]:
        outcome = self.state.handle(parse({"kind": kind, "request": 1, **body}), self.now)
        self._persist(outcome.records)
        return outcome.reply

    def wait(self, seconds: float, *beating: str, reporting: bool = True) -> None:
        """Let time pass in ticks; the agents named keep beating, and receivers reporting."""
        until = self.now + seconds
        while self.now < until:
            self.now += TICK_S
            for agent in beating:
                self.beat(agent)
            if reporting:
                self.report_all()
            self._persist(self.state.handle(Tick(), self.now).records)

    def restart(self, chosen: Settings | None = None) -> None:
        """Kill the coordinator and start it again on what it persisted."""
        self.settings = chosen or self.settings
        self.state = State(self.settings, self.saved(), self.now)
        self._persist(self.state.unsaved())

    def saved(self) -> Saved:
        def of(record: type[Any]) -> list[Any]:
            table = record.TABLE
            return [
                copy.deepcopy(row)
                for (name, _key), row in sorted(self.rows.items(), key=lambda item: item[0])
                if name == table
            ]

        return Saved(
            of(Standing)[0], of(Simulation), of(Lease), of(Worker), of(Agent), of(Shard), of(Entry)
        )

    def _persist(self, records: list[Record]) -> None:
        for record in records:
            key = tuple(getattr(record, name) for name in record.KEY)
            self.rows[record.TABLE, key] = copy.deepcopy(record)

    # -- the others' parts -----------------------------------------------------------------------

    def report_all(self) -> None:
        for shard in self.settings.shards:
            self.report(shard)

    def report(self, shard: str = "0", **body: Any) -> dict[str, Any]:
        return self.say("report", shard=shard, address=f"tcp://127.0.0.1:5{shard}", **body)

    def beat(self, agent: str = "a1", state: str = "", **body: Any) -> dict[str, Any]:
        """A beat that repeats what the coordinator last ordered, unless told otherwise."""
        worker = body.pop("worker", None) or self.worker_of(agent)
        state = state or ("running" if worker else "idle")
        return self.say("beat", agent=agent, worker=worker, state=state, **body)

    def worker_of(self, agent: str = "a1") -> str:
        known = self.state._books.agents.get(agent)
        return known.worker if known is not None else ""

    def started(self, agent: str = "a1") -> str:
        """An agent that comes, and whose worker says hello; returns the worker's name."""
        if not all(shard.address for shard in self.state._books.shards.values()):
            self.report_all()
        order = self.beat(agent, "idle")
        assert order["order"] == "start", order
        worker = str(order["worker"])
        assert self.say("hello", worker=worker, agent=agent)["kind"] == "welcome"
        return worker

    def next(self, worker: str, previous: dict[str, Any] | None = None, **body: Any) -> Any:
        sequence = self.state._books.workers[worker].sequence + 1
        return self.say("next", worker=worker, sequence=sequence, previous=previous, **body)

    def deliver(self, assignment: dict[str, Any], segments: int = 10) -> None:
        for shard in assignment["shards"]:
            confirmed = [[assignment["simulation"], assignment["lease"], segments]]
            self.report(shard, delivered=confirmed)

    def simulation(self, number: int) -> Simulation:
        return self.state._books.production.simulations[number]

    def status(self, **since: int) -> dict[str, Any]:
        return self.say("status", **since)

    def faults(self) -> list[dict[str, Any]]:
        return list(self.status(faults_since=0)["faults"])


def ended(assignment: dict[str, Any], steps: int = 10) -> dict[str, Any]:
    return _outcome(assignment, "ended", steps, "")


def failed(assignment: dict[str, Any], reason: str = "diverged") -> dict[str, Any]:
    return _outcome(assignment, "failed", 3, reason)


def refusal(assignment: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "simulation": assignment["simulation"],
        "lease": assignment["lease"],
        "kind": kind,
        "reason": "it is not what was declared",
        "field": "temperature",
        "step": 7,
    }


def _outcome(assignment: dict[str, Any], outcome: str, steps: int, reason: str) -> dict[str, Any]:
    return {
        "simulation": assignment["simulation"],
        "lease": assignment["lease"],
        "outcome": outcome,
        "steps": steps,
        "reason": reason,
    }
