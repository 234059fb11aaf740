"""Workers and agents: who is alive, who works on what, who is started, ended and sent home.

Part of the pure state machine. Liveness comes from agents' beats alone; whether a worker is hung
or only slow is told by the steps that its shards have seen.
"""

from __future__ import annotations

import re
import signal
from typing import Any

from penstock_server.coordinator.books import Books
from penstock_server.coordinator.records import Agent, Lease, Worker
from penstock_server.coordinator.requests import Beat, Fail, Hello, Next, Previous

Reply = dict[str, Any]
GO_ON: Reply = {"kind": "orders", "order": "go_on"}
END: Reply = {"kind": "orders", "order": "end"}
LEAVE: Reply = {"kind": "orders", "order": "leave"}
OVER: Reply = {"kind": "over"}
KILLED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGKILL, 128 + signal.SIGTERM)
NOT_STARTED = (126, 127)  # a shell's exit codes for a command that it cannot start or find
_MPI_KILLED = re.compile(r"exited on signal (9|15)\b")  # mpirun's own words on a killed rank
_LONGEST_PAUSE_S = 10.0


class Staff:
    """Handles what workers and agents ask, and the deadlines that they can miss."""

    def __init__(self, books: Books) -> None:
        self._books = books

    # -- workers ---------------------------------------------------------------------------------

    def hello(self, hello: Hello) -> Reply:
        """welcome, or wait while a shard has not yet reported its address."""
        books = self._books
        worker = books.workers.get(hello.worker)
        if worker is None:
            if hello.agent:
                return _refused(
                    f"The worker {hello.worker!r} was not started by this campaign. Start it "
                    "through an agent, or by hand without PENSTOCK_AGENT."
                )
            worker = books.welcome(Worker(hello.worker))
            books.event(f"The worker {hello.worker} was started by hand; nobody beats for it.")
        if worker.state in ("gone", "ending"):
            return _refused(f"The worker {hello.worker!r} was given up and must end.")
        if worker.state == "starting":
            worker.state = "idle"
        worker.heard_at = books.now
        worker.pid, worker.host, worker.parts = hello.pid, hello.host, hello.parts
        books.changes.add(worker)
        if not books.standing.greeted:
            books.standing.greeted = True
            books.changes.add(books.standing)
        if not all(shard.address for shard in books.shards.values()):
            return {"kind": "wait", "retry_s": books.rules.retry_s}
        return {
            "kind": "welcome",
            "campaign": books.settings.campaign,
            "name": books.settings.name,
            "fields": books.settings.fields,
            "stream": books.settings.stream,
            "shards": self.book(),
        }

    def book(self) -> dict[str, Any]:
        """The address book of the shards."""
        shards = self._books.shards.values()
        return {s.shard: {"address": s.address, "epoch": s.epoch} for s in shards}

    def next(self, request: Next) -> Reply:
        """assignment, wait or over; the same for the same sequence number, unless it was wait."""
        books = self._books
        worker = books.workers.get(request.worker)
        if worker is None:
            return _refused(f"The worker {request.worker!r} never said hello to this campaign.")
        worker.heard_at = books.now
        if worker.state in ("gone", "ending"):
            return OVER
        if request.sequence == worker.sequence and worker.answer:
            return worker.answer
        if request.sequence < worker.sequence:
            return _refused(
                f"The request {request.sequence} of {request.worker!r} is older than its last, "
                f"{worker.sequence}."
            )
        self._close_previous(worker, request.previous)
        books.judge()  # that may have been the last one
        answer = self._answer(worker, request.leaving)
        worker.sequence = request.sequence
        if answer["kind"] == "wait":
            worker.answer = {}
        else:
            worker.answer = answer
            books.changes.add(worker)
        return answer

    def fail(self, request: Fail) -> Reply:
        """A worker's last word before an exception ends it."""
        worker = self._books.workers.get(request.worker)
        if worker is not None:
            worker.heard_at = self._books.now
            self._close_previous(
                worker,
                Previous(
                    simulation=request.simulation,
                    lease=request.lease,
                    outcome="failed",
                    reason=request.reason,
                ),
            )
        return {"kind": "noted"}

    def _answer(self, worker: Worker, leaving: bool) -> Reply:
        books = self._books
        if leaving or books.standing.state != "running":
            return OVER
        given = books.production.assign(worker.worker, books.now)
        if given is None:
            # Something that runs elsewhere may still come back to the queue.
            return {"kind": "wait", "retry_s": books.rules.retry_s}
        simulation, lease = given
        worker.state, worker.lease = "busy", lease.lease
        worker.assigned += 1
        if books.standing.dead_starts:
            books.standing.dead_starts = 0
            books.changes.add(books.standing)
        return {
            "kind": "assignment",
            "simulation": simulation.id,
            "lease": lease.lease,
            "role": simulation.role,
            "attempt": lease.attempt,
            "seed": simulation.seed,
            "parameters": simulation.parameters,
            "shards": simulation.shards,
            "wanted": simulation.wanted,
        }

    def _close_previous(self, worker: Worker, previous: Previous | None) -> None:
        books = self._books
        if worker.state != "idle":
            worker.state = "idle"
            books.changes.add(worker)
        for lease in books.production.open_leases(worker.worker):
            if lease.state == "running":  # else it is a repetition
                self._close(lease, previous)

    def _close(self, lease: Lease, previous: Previous | None) -> None:
        books = self._books
        if previous is None or previous.lease != lease.lease:
            books.fail_lease(lease, "The worker went on without saying how the simulation ended.")
            return
        books.worker_time.hear(previous.time_s)
        if previous.outcome == "ended":
            books.production.end(lease, previous.steps, books.now)
        elif previous.outcome == "failed":
            books.fail_lease(lease, f"The solver says that it failed: {previous.reason}")
        else:
            books.production.await_refusal(lease, books.now)
            lease.reason = previous.reason

    # -- agents ----------------------------------------------------------------------------------

    def beat(self, beat: Beat) -> Reply:
        """Orders for an agent, after what it says of its worker."""
        books = self._books
        agent = books.agents.get(beat.agent)
        if agent is None:
            agent = books.agents[beat.agent] = Agent(beat.agent, beat.incarnation)
            books.changes.add(agent)
        agent.heard_at = books.now
        if beat.incarnation != agent.incarnation:
            self._dismiss(agent, f"its agent {agent.agent} died and was started again.")
            agent.incarnation, agent.state = beat.incarnation, "idle"
        elif agent.state == "lost":
            agent.state = "idle"
            books.changes.add(agent)
            books.event(f"The agent {agent.agent} is back.")
        worker = books.workers.get(beat.worker)
        mine = worker is not None and beat.worker == agent.worker
        if worker is not None:
            worker.log = beat.log or worker.log
            worker.tail = beat.stderr_tail or worker.tail
        if beat.state == "left":
            return self._left(agent, beat)
        if mine and worker is not None:
            if beat.state in ("running", "stopped"):
                return self._orders_at_work(agent, worker, beat)
            if beat.state == "exited":
                self._exited(worker, beat)
                self._release(agent, worker)
        elif beat.state in ("running", "stopped"):
            return END  # one that was given up while the agent was silent
        return self._orders_at_rest(agent)

    def _orders_at_work(self, agent: Agent, worker: Worker, beat: Beat) -> Reply:
        books = self._books
        if agent.state != "working":
            agent.state = "working"
            books.changes.add(agent)
        if books.standing.state in ("trained", "stopping"):
            return LEAVE
        grace_s = books.now - books.over_since
        if books.standing.state == "over" and grace_s > books.rules.leave_grace_s:
            return LEAVE
        if beat.state == "stopped" and worker.state != "ending":
            self._give_up(worker, f"it was stopped (SIGSTOP) for {beat.stopped_s:.0f} s.")
        return END if worker.state == "ending" else GO_ON

    def _orders_at_rest(self, agent: Agent) -> Reply:
        books = self._books
        if books.standing.state != "running":
            return LEAVE
        if not agent.worker:
            if books.now < agent.not_before or not books.production.queued:
                return GO_ON
            worker = books.welcome(Worker(f"w{books.standing.next_worker}", agent.agent))
            books.standing.next_worker += 1
            agent.worker, agent.state = worker.worker, "working"
            books.changes.add(books.standing)
            books.changes.add(agent)
        return {"kind": "orders", "order": "start", "worker": agent.worker}

    def _left(self, agent: Agent, beat: Beat) -> Reply:
        worker = self._books.workers.get(agent.worker)
        if worker is not None:
            self._lose_leases(worker, f"its agent {agent.agent} left.")
            self._release(agent, worker)
        agent.state = "left"
        self._books.changes.add(agent)
        return LEAVE

    def _release(self, agent: Agent, worker: Worker) -> None:
        worker.state, agent.worker, agent.state = "gone", "", "idle"
        self._books.present.pop(worker.worker, None)
        self._books.changes.add(worker)
        self._books.changes.add(agent)

    def _dismiss(self, agent: Agent, why: str) -> None:
        """The agent is no longer there, and so its worker is not either."""
        worker = self._books.workers.get(agent.worker)
        if worker is not None:
            self._lose_leases(worker, why)
            self._release(agent, worker)
        self._books.changes.add(agent)

    # -- ends ------------------------------------------------------------------------------------

    def _give_up(self, worker: Worker, why: str) -> None:
        """Its simulations go back to the queue, and its agent is told to end it."""
        self._lose_leases(worker, why)
        worker.state = "ending"
        self._books.changes.add(worker)

    def _lose_leases(self, worker: Worker, why: str) -> None:
        for lease in self._books.production.open_leases(worker.worker):
            if lease.state != "refused":  # that one waits for the shard's word, not for the worker
                self._books.lose_lease(lease, f"{worker.worker}: {why}")

    def _exited(self, worker: Worker, beat: Beat) -> None:
        books = self._books
        if worker.state in ("ending", "gone"):
            return  # by our order; everything is written down
        code = 0 if beat.exit_code is None else beat.exit_code
        outside = code in KILLED_FROM_OUTSIDE or (
            code != 0 and _MPI_KILLED.search(beat.stderr_tail) is not None
        )
        how = f"The solver command {describe_exit(code)}"
        for lease in books.production.open_leases(worker.worker):
            simulation = books.production.simulations[lease.simulation]
            if lease.state == "refused":
                continue  # the shard says why, and whether it was the solver's fault
            if outside or lease.state == "ended" or books.production.delivered(simulation):
                books.lose_lease(lease, f"{worker.worker}: {how}.")
            else:
                books.fail_lease(lease, f"{how} before simulation {lease.simulation} was complete.")
        if worker.answer.get("kind") != "over" and not worker.assigned:
            self._dead_start(worker, f"{how} before it asked for a simulation.", outside, code)
        elif code:
            books.event(f"{worker.worker}: {how}; its log is {worker.log}.")

    def _dead_start(self, worker: Worker, what: str, outside: bool, code: int | None) -> None:
        """A worker that never got as far as a simulation; too many of them end the campaign."""
        books, standing = self._books, self._books.standing
        standing.dead_starts += 1
        books.changes.add(standing)
        books.event(f"{worker.worker}: {what}")
        agent = books.agents.get(worker.agent)
        if agent is not None:
            pause_s = 0.5 * 2.0 ** min(standing.dead_starts - 1, 10)
            agent.not_before = books.now + min(_LONGEST_PAUSE_S, pause_s)
        hopeless = standing.dead_starts >= 2 or code in NOT_STARTED
        never_worked = not standing.greeted and not outside and hopeless
        if never_worked or standing.dead_starts >= books.rules.dead_starts:
            books.stop(f"{what} Its log is {worker.log}. Its stderr ends with:\n{worker.tail}")

    # -- deadlines -------------------------------------------------------------------------------

    def check_deadlines(self) -> None:
        """Called at every tick."""
        books = self._books
        for agent in books.agents.values():
            silent_s = books.now - agent.heard_at
            if agent.state in ("idle", "working") and silent_s > books.rules.silence_s:
                books.event(f"The agent {agent.agent} has been silent for {silent_s:.0f} s.")
                self._dismiss(agent, f"its agent {agent.agent} was silent for {silent_s:.0f} s.")
                agent.state = "lost"
        for lease in list(books.production.open.values()):
            self._check_lease(lease)
        for worker in list(books.present.values()):
            if worker.state != "ending":
                self._check_worker(worker)

    def _check_lease(self, lease: Lease) -> None:
        books, rules = self._books, self._books.rules
        if lease.state == "refused":
            if books.now - lease.progressed_at > rules.silence_s:
                books.fail_lease(lease, f"A shard refused it: {lease.reason}")
            return
        if lease.state == "ended":
            self._check_confirmation(lease)
            return
        if any(lease.held.values()) or not self._shards_listen(lease):
            lease.progressed_at = books.now  # it waits for us, and is not to blame
            return
        first = not any(lease.seen.values())
        limit_s = (
            max(rules.start_deadline_s, rules.step_deadline_s) if first else (rules.step_deadline_s)
        )
        if books.now - lease.progressed_at <= limit_s:
            return
        books.fail_lease(
            lease,
            f"No {'first' if first else 'new'} step came for {limit_s:g} s (step_deadline_s = "
            f"{rules.step_deadline_s:g}); the solver hangs, or the deadline is too short.",
        )
        worker = books.workers.get(lease.worker)
        if worker is not None and worker.state != "gone":
            self._give_up(worker, "it hung.")

    def _check_confirmation(self, lease: Lease) -> None:
        books, rules = self._books, self._books.rules
        if not self._shards_listen(lease):
            lease.progressed_at = books.now
        elif books.now - lease.progressed_at > max(rules.start_deadline_s, rules.step_deadline_s):
            books.lose_lease(lease, "its shards never confirmed all its segments.")

    def _shards_listen(self, lease: Lease) -> bool:
        books, rules = self._books, self._books.rules
        silence_s = min(rules.silence_s, rules.step_deadline_s / 2)
        shards = books.production.simulations[lease.simulation].shards
        heard = [books.shards[name].heard_at for name in shards]
        return all(at is not None and books.now - at <= silence_s for at in heard)

    def _check_worker(self, worker: Worker) -> None:
        books, rules = self._books, self._books.rules
        if worker.state == "starting":
            if books.now - worker.heard_at > rules.start_deadline_s:
                self._give_up(worker, "no hello.")
                what = f"no hello came within start_deadline_s = {rules.start_deadline_s:g} s."
                self._dead_start(worker, what, False, None)
            return
        lease = books.production.leases.get(worker.lease)
        if worker.state == "busy" and lease is not None and lease.state == "running":
            return  # its steps tell
        since = max(worker.heard_at, lease.progressed_at if lease is not None else 0.0)
        if books.now - since > max(rules.start_deadline_s, rules.step_deadline_s):
            books.event(f"{worker.worker} has no simulation and does not ask for one; it is ended.")
            self._give_up(worker, "it did not ask for its next simulation.")


def describe_exit(code: int) -> str:
    """An exit code in words; negative or above 128 means a signal."""
    number = -code if code < 0 else code - 128
    if code < 0 or code > 128:
        try:
            return f"was killed by {signal.Signals(number).name}"
        except ValueError:
            pass
    return f"ended with exit code {code}"


def _refused(why: str) -> Reply:
    return {"kind": "refused", "why": why}
