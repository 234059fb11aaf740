"""The coordinator as a pure state machine: events in, replies and records to persist out.

No input or output, no clock, no randomness. `process.py` drives it; tests drive it by hand. Its
parts: Books (what is known), Production (simulations and leases), Staff (workers and agents),
Journal (what happened). This file has the shards, the trainer, the supervisor and the standing of
the whole campaign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock_server.coordinator.books import Books, Saved
from penstock_server.coordinator.journal import EVENTS, PROGRESS, VALIDATED
from penstock_server.coordinator.plan import HELD_OUT
from penstock_server.coordinator.records import (
    FAILED,
    QUARANTINED,
    SETTLED_STATES,
    Record,
    Simulation,
)
from penstock_server.coordinator.requests import (
    Asked,
    Beat,
    Book,
    Event,
    Fail,
    Fault,
    Hello,
    Next,
    NotAccepted,
    Progress,
    Refusal,
    Report,
    Status,
    Stop,
    Tick,
    Validated,
)
from penstock_server.coordinator.settings import Settings
from penstock_server.coordinator.staff import Reply, Staff
from penstock_server.coordinator.status import counters, status
from penstock_server.refusals import ALWAYS_THE_SAME, KNOWN


@dataclass(frozen=True)
class Outcome:
    """`records` are to be persisted, all in one transaction, before the reply is sent."""

    reply: Reply
    records: list[Record]


class State:
    """`saved`: what an earlier coordinator of this campaign left; None to begin."""

    def __init__(self, settings: Settings, saved: Saved | None, now: float) -> None:
        self._last_now = now
        self._paused_s = 0.0
        self._books = Books(settings, saved, now)
        self._staff = Staff(self._books)

    def unsaved(self) -> list[Record]:
        """What the construction changed; to be persisted before the first event."""
        return self._books.changes.take()

    def handle(self, event: Event, now: float) -> Outcome:
        """now: seconds on any clock that does not go back."""
        self._books.set_time(self._without_pauses(now))
        try:
            reply = self._tick() if isinstance(event, Tick) else self._reply(event)
        except NotAccepted as error:
            reply = {"kind": "refused", "why": str(error)}
        self._books.judge()
        return Outcome(reply, self._books.changes.take())

    def counters(self) -> dict[str, float]:
        """For the metrics."""
        return counters(self._books)

    def seconds(self) -> dict[tuple[str, str], float]:
        """Of all workers together, for the metrics: (activity, cause) -> seconds."""
        return {(name, ""): s for name, s in self._books.worker_time.seconds.items()}

    @property
    def finished(self) -> bool:
        """Whether the supervisor said stop, and agents and receivers know and have left."""
        books = self._books
        if not books.standing.leave:
            return False
        agents = all(agent.state in ("left", "lost") for agent in books.agents.values())
        return agents and all(
            shard.told_stop
            or shard.heard_at is None
            or books.now - shard.heard_at > books.rules.silence_s
            for shard in books.shards.values()
        )

    def _without_pauses(self, now: float) -> float:
        """Our own pause (SIGSTOP, a suspended machine) is nobody's silence: it is cut out."""
        gap_s = now - self._last_now
        self._last_now = now
        longest_s = self._books.rules.silence_s / 3
        if gap_s > longest_s:
            self._paused_s += gap_s - longest_s
        return now - self._paused_s

    def _reply(self, event: Asked) -> Reply:
        match event:
            case Hello():
                return self._staff.hello(event)
            case Next():
                return self._staff.next(event)
            case Fail():
                return self._staff.fail(event)
            case Beat():
                return self._staff.beat(event)
            case Book():
                return {"kind": "book", "shards": self._staff.book()}
            case Report():
                return self._report(event)
            case Progress():
                return self._progress(event)
            case Validated():
                return self._validated(event)
            case Status():
                return status(self._books, event)
            case Stop():
                return self._stop(event)
            case Fault():
                return self._fault(event)

    # -- receivers -------------------------------------------------------------------------------

    def _report(self, report: Report) -> Reply:
        books = self._books
        shard = books.shards.get(report.shard)
        if shard is None:
            raise NotAccepted(
                f"There is no shard {report.shard!r}; the shards are {', '.join(books.shards)}."
            )
        if report.address != shard.address or report.epoch > shard.epoch:
            moved = shard.epoch + (report.address != shard.address)
            shard.address, shard.epoch = report.address, max(report.epoch, moved)
            books.changes.add(shard)
        shard.heard_at, shard.pid = books.now, report.pid
        shard.counters, shard.seconds = report.counters, report.seconds
        shard.blocked = report.blocked
        for number, _lease, segments in report.delivered:
            simulation = books.production.simulations.get(number)
            if simulation is not None:
                books.production.confirm(simulation, report.shard, segments)
        for refusal in report.refused:
            self._refusal(report.shard, refusal)
        self._note_steps(report)
        stop = books.standing.state == "stopping" or (
            # The validator still reads the held-out shard when training is done.
            books.standing.state == "trained" and report.shard != HELD_OUT
        )
        shard.told_stop = stop
        return {
            "kind": "orders",
            "production": "running" if books.standing.state == "running" else "over",
            "retired": list(books.production.retired.get(report.shard, ())),
            "superseded": books.production.superseded(report.shard),
            "stop": stop,
            "epoch": shard.epoch,
            "acknowledged": True,
        }

    def _note_steps(self, report: Report) -> None:
        leases = self._books.production.open
        listed = set()
        for _simulation, number, steps, *held in report.progress:
            lease = leases.get(number)
            if lease is None:
                continue
            listed.add(number)
            lease.held[report.shard] = bool(held and held[0])
            if steps > lease.seen.get(report.shard, 0):
                lease.seen[report.shard] = steps
                lease.progressed_at = self._books.now
        for number, lease in leases.items():
            if number not in listed:
                lease.held.pop(report.shard, None)

    def _refusal(self, shard: str, refusal: Refusal) -> None:
        """What a shard would not take; it may be told again, and late."""
        books, production = self._books, self._books.production
        simulation = production.simulations.get(refusal.simulation)
        lease = production.leases.get(refusal.lease)
        if simulation is None or lease is None or lease.simulation != simulation.id:
            return
        if simulation.state in SETTLED_STATES - {FAILED} or refusal.kind in KNOWN:
            return
        where = f" at step {refusal.step}" if refusal.step is not None else ""
        what = f" in field {refusal.field!r}" if refusal.field else ""
        message = f"Shard {shard} refused it ({refusal.kind}{what}{where}): {refusal.reason}"
        if refusal.kind in ALWAYS_THE_SAME:
            production.quarantine(simulation, message, books.now)
            books.blame(lease, message, QUARANTINED)
        elif simulation.state == FAILED or lease.lease != simulation.lease:
            return
        elif refusal.kind == "unreproducible":
            self._replace(simulation, message)
            books.blame(lease, message, simulation.state)
        elif lease.state in ("running", "refused", "ended"):
            books.fail_lease(lease, message)

    def _replace(self, simulation: Simulation, message: str) -> None:
        books = self._books
        line, ancestor = 1, simulation
        while ancestor.predecessor is not None:
            line, ancestor = line + 1, books.production.simulations[ancestor.predecessor]
        if line >= books.rules.max_attempts:
            books.production.give_up(simulation, message, books.now)
        else:
            successor = books.production.replace(simulation, message, books.now)
            books.event(
                f"Simulation {simulation.id} does not reproduce itself; it stays partial, and "
                f"simulation {successor.id} with the same inputs is queued in its place."
            )

    # -- trainer, validator, supervisor ----------------------------------------------------------

    def _progress(self, progress: Progress) -> Reply:
        books, standing = self._books, self._books.standing
        books.journal.note(PROGRESS, _shown(progress))
        if progress.error:
            books.event(f"The trainer reports an error: {progress.error}")
        if progress.state == "done" and standing.state in ("running", "over"):
            standing.state, standing.why = "trained", "training is done."
            books.changes.add(standing)
            books.event("Training is done; workers and agents are sent home.")
        stop = standing.state == "stopping" or bool(standing.training_stop)
        return {"kind": "orders", "stop": stop, "why": standing.training_stop or standing.why}

    def _validated(self, validated: Validated) -> Reply:
        books = self._books
        books.journal.note(VALIDATED, _shown(validated))
        target = books.rules.target_error
        if target is not None and validated.value is not None and validated.value <= target:
            self._stop_training(
                f"the validation error {validated.value:.4g} has reached target_error {target:g}."
            )
        return {"kind": "orders", "stop": books.standing.state == "stopping"}

    def _stop_training(self, why: str) -> None:
        standing = self._books.standing
        if not standing.training_stop and standing.state in ("running", "over"):
            standing.training_stop = why
            self._books.changes.add(standing)
            self._books.event(f"Training is told to stop: {why}")

    def _stop(self, stop: Stop) -> Reply:
        books = self._books
        books.stop(stop.why or "the supervisor said so.")
        if not books.standing.leave:
            books.standing.leave = True
            books.changes.add(books.standing)
        return {"kind": "stopping"}

    def _fault(self, fault: Fault) -> Reply:
        self._books.journal.note(EVENTS, {"what": f"Fault of {fault.process}.", **_shown(fault)})
        return {"kind": "noted"}

    # -- the campaign as a whole -----------------------------------------------------------------

    def _tick(self) -> Reply:
        books = self._books
        books.look_at_workers()
        self._staff.check_deadlines()
        limit_s = books.rules.seconds
        if limit_s is not None and books.journal.seconds > limit_s:
            self._stop_training(f"stop.seconds = {limit_s:g} have passed.")
        return {}


def _shown(event: Progress | Validated | Fault) -> dict[str, Any]:
    hidden = {"kind", "from", "request"}
    return {key: value for key, value in event.model_dump().items() if key not in hidden}
