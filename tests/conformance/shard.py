"""A shard that follows a script and judges what comes: messages in, answers out, no sockets.

It knows WIRE.md, keeps what a receiver would keep, and writes down every rule that is broken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from granting import Granting
from lent import Lent, LentError, Unread
from scenarios import Scenario

from penstock import wire
from penstock.wire import Header, Kind

RESYNC_PAUSE_S = 1.0
Frames = list[bytes]
NUMBERED = {Kind.PLAN, Kind.OPEN, Kind.INPUT, Kind.PART, Kind.BUNCH, Kind.END, Kind.FAIL}


@dataclass
class Connection:
    """What the shard knows of one part since its last HELLO; a real one loses all of it."""

    part: int
    greeting: int
    expected: int = 0
    acknowledged: int = 0
    plans: dict[int, list[np.ndarray]] = field(default_factory=dict)
    opened: dict[int, int] = field(default_factory=dict)  # lease -> plan that its OPEN named
    fed: set[int] = field(default_factory=set)  # leases whose INPUT came
    pending: list[tuple[int, Any]] = field(default_factory=list)  # received, not acknowledged
    pending_bytes: int = 0
    lent: Lent | None = None
    unread: list[Unread] = field(default_factory=list)  # received, not acknowledged


@dataclass
class Part:
    """What is true of a part for good."""

    number: int
    greeting: int = 0
    received: int = 0  # numbered messages, repeats too
    probes: int = 0
    gone: bool = False
    lost_again: bool = False
    ended: dict[int, tuple[Kind, int]] = field(default_factory=dict)  # lease -> END or FAIL, steps
    golden: dict[tuple[Kind, int], Frames] = field(default_factory=dict)


class Shard:
    """`take` a message, get the answers; `tick` for what time brings; `problems` at the end."""

    def __init__(self, scenario: Scenario, position: int, n_parts: int) -> None:
        self.problems: list[str] = []
        self.parts = {number: Part(number) for number in range(n_parts)}
        self.stored: dict[tuple[int, int, int], list[bytes]] = {}  # lease, step, part -> payloads
        self.inputs: dict[tuple[int, int], list[bytes]] = {}
        self.used_plans: dict[tuple[int, int], list[np.ndarray]] = {}  # lease, part
        self.reopening = False
        self.used: set[str] = set()  # of what a client may do: "bunches", "memory"
        self._scenario, self._position, self._n_parts = scenario, position, n_parts
        self._leases = {int(a["lease"]): a for a in scenario.assignments}
        self._names = list(scenario.fields)
        self._inputs = scenario.contract.inputs
        self._connections: dict[bytes, Connection] = {}
        self._resynced: dict[bytes, float] = {}
        self._granting = Granting(scenario, self.stored, self.parts)
        self._forgotten = 0

    # -- in and out ------------------------------------------------------------------------------

    def take(self, identity: bytes, frames: Frames, now: float) -> list[tuple[bytes, Frames]]:
        """The answers to one message, each with the connection that it goes to."""
        try:
            header = wire.decode(frames[0])
        except wire.WireError as error:
            return self._blame(f"A frame came that is no message: {error}")
        if bytes(wire.encode(header)) != frames[0]:
            self._blame(f"{header.kind.name} has bytes set that are reserved, or an unusual NaN.")
        if header.campaign != self._scenario.campaign:
            return self._blame(f"{header.kind.name} names the campaign {header.campaign}.")
        if header.n_parts != self._n_parts or header.part not in self.parts:
            return self._blame(f"{header.kind.name} is of part {header.part} of {header.n_parts}.")
        part = self.parts[header.part]
        part.golden.setdefault(
            (header.kind, header.step if header.kind == Kind.PART else 0), frames
        )
        if part.gone:
            return self._blame(f"{header.kind.name} came from part {part.number} after its BYE.")
        if header.kind == Kind.HELLO:
            return self._greet(identity, part, header, frames[1:])
        if header.kind == Kind.BYE:
            part.gone = True
            connection = self._connections.get(identity)
            if connection is not None and connection.acknowledged < connection.expected:
                self._blame("BYE came before everything was acknowledged.")
            return []
        if header.kind == Kind.PROBE:
            return self._probe(identity, part, header, now)
        if header.kind not in NUMBERED:
            return self._blame(f"{header.kind.name} is no message of a client.")
        return self._number(identity, part, header, frames[1:], now)

    def tick(self, now: float) -> list[tuple[bytes, Frames]]:
        """Grants what was withheld, when its time has come."""
        news = self._granting.tick(now)
        return [self._ack(i, c) for i, c in self._connections.items() if news and c.opened]

    def forget(self) -> None:
        """Loses all connections, and what was not acknowledged."""
        for connection in self._connections.values():
            for _, undo in connection.pending:
                if undo is not None:
                    undo()
        self._connections.clear()
        self._resynced.clear()

    def _blame(self, problem: str) -> list[tuple[bytes, Frames]]:
        if len(self.problems) < 20 and problem not in self.problems:
            self.problems.append(problem)
        return []

    # -- connections -----------------------------------------------------------------------------

    def _greet(
        self, identity: bytes, part: Part, header: Header, offers: Frames
    ) -> list[tuple[bytes, Frames]]:
        if header.step != part.greeting + 1:
            self._blame(f"Greeting {header.step} came after greeting {part.greeting}.")
        part.greeting = header.step
        for other in [i for i, c in self._connections.items() if c.part == part.number]:
            del self._connections[other]
        connection = self._connections[identity] = Connection(part.number, header.step)
        self._resynced.pop(identity, None)
        self._accept(connection, offers)
        campaign, old = self._scenario.campaign, []
        if header.step > 1 and self._scenario.faults.old_resync:
            old.append(Header(Kind.RESYNC, campaign))
        if header.step > 1 and self._scenario.faults.old_ack:
            old.append(Header(Kind.ACK, campaign, step=header.step - 1, sequence=1_000_000))
        return [
            *((identity, [bytes(wire.encode(word))]) for word in old),
            self._ack(identity, connection),
        ]

    def _accept(self, connection: Connection, offers: Frames) -> None:
        if not offers:
            return
        if not self._scenario.stream.get("shared_memory"):
            self._blame("HELLO offers memory, and the campaign does not allow it.")
        try:
            lent = Lent(offers[0])
        except LentError as error:
            self._blame(str(error))
            return
        if self._scenario.faults.borrows:
            connection.lent = lent

    def _probe(
        self, identity: bytes, part: Part, header: Header, now: float
    ) -> list[tuple[bytes, Frames]]:
        part.probes += 1
        connection = self._connections.get(identity)
        if connection is None or header.sequence > connection.expected:
            return self._resync(identity, now, asked=True)
        if header.sequence < connection.expected:
            self._blame(f"PROBE says {header.sequence} where {connection.expected} was next.")
        return [self._ack(identity, connection)]

    def _number(
        self, identity: bytes, part: Part, header: Header, payloads: Frames, now: float
    ) -> list[tuple[bytes, Frames]]:
        faults, count = self._scenario.faults, part.received
        part.received += 1
        if count in faults.lose:
            return []
        connection = self._connections.get(identity)
        if connection is not None and self._lost_again(connection, part):
            return []
        if connection is None or header.sequence > connection.expected:
            return self._resync(identity, now, asked=False)
        if header.sequence < connection.expected:
            self._blame(f"The number {header.sequence} came twice on one greeting.")
            return [self._ack(identity, connection)]
        connection.expected += 1
        payloads = self._read(connection, header, payloads)
        undo = self._keep(connection, part, header, payloads)
        n_bytes = wire.HEADER.size + wire.FIELD.size * len(header.fields)
        n_bytes += sum(len(p) for p in payloads)
        connection.pending.append((n_bytes, undo))
        connection.pending_bytes += n_bytes
        window = int(self._scenario.stream.get("window_bytes", 1 << 26)) // self._scenario.shards
        steps = header.kind in (Kind.PART, Kind.BUNCH)
        if connection.pending_bytes > window + n_bytes and steps:
            self._blame(f"{connection.pending_bytes} bytes are unacknowledged; {window} may be.")
        if part.number == 0 and (count in faults.forget or count == faults.reopen):
            self.forget()
            self.reopening = count == faults.reopen
            return []
        answers = self._refuse(header)
        credited = self._granting.grant(now)
        silent = faults.silent_from is not None and count >= faults.silent_from
        if credited:
            answers += [self._ack(i, c) for i, c in self._connections.items() if c.opened]
        elif not silent and connection.expected % faults.ack_every == 0:
            answers += [self._ack(identity, connection)] * faults.ack_copies
        return answers

    def _read(self, connection: Connection, header: Header, payloads: Frames) -> Frames:
        """The values, from wherever they are."""
        if not any(entry.flags & wire.LENT for entry in header.fields):
            return payloads
        if connection.lent is None:
            self._blame("A row is LENT, and no ACK of this greeting had BORROWS.")
            return payloads
        try:
            payloads, unread = connection.lent.read(header, payloads)
        except LentError as error:
            self._blame(str(error))
            return payloads
        self.used.add("memory")
        connection.unread += unread
        return payloads

    def _lost_again(self, connection: Connection, part: Part) -> bool:
        again = (2, self._scenario.faults.lose_again)
        if part.lost_again or (connection.greeting, connection.expected) != again:
            return False
        part.lost_again = True
        return True

    def _ack(self, identity: bytes, connection: Connection) -> tuple[bytes, Frames]:
        connection.acknowledged = connection.expected
        connection.pending.clear()
        connection.pending_bytes = 0
        if connection.lent is not None and connection.lent.changed(connection.unread):
            self._blame("Memory was written to before its message was acknowledged.")
        connection.unread.clear()
        flags = wire.HOLD if self._granting.holds else 0
        flags |= wire.BORROWS if connection.lent is not None else 0
        header = Header(
            Kind.ACK, self._scenario.campaign, step=connection.greeting,
            sequence=connection.expected, flags=flags,
        )  # fmt: skip
        grants = wire.encode_grants(self._granting.of(connection.opened))
        return identity, [bytes(wire.encode(header)), *([grants] if grants else [])]

    def _refuse(self, header: Header) -> list[tuple[bytes, Frames]]:
        refusal, to = self._granting.refusal(header), self._scenario.faults.refuse_parts
        return [
            (identity, refusal)
            for identity, c in self._connections.items()
            if refusal is not None and (to is None or c.part in to)
        ]

    def _resync(self, identity: bytes, now: float, asked: bool) -> list[tuple[bytes, Frames]]:
        if not asked and now - self._resynced.get(identity, -math.inf) < RESYNC_PAUSE_S:
            return []
        self._resynced[identity] = now
        return [(identity, [bytes(wire.encode(Header(Kind.RESYNC, self._scenario.campaign)))])]

    # -- what the messages say -------------------------------------------------------------------

    def _keep(
        self, connection: Connection, part: Part, header: Header, payloads: Frames
    ) -> Callable[[], None] | None:
        """Checks and keeps one message in its turn; returns what takes it back."""
        lengths = [entry.n_bytes for entry in header.fields]
        if header.kind in (Kind.PLAN, Kind.INPUT, Kind.PART) and lengths != [
            len(p) for p in payloads
        ]:
            self._blame(f"{header.kind.name} announces {lengths} bytes, and other frames came.")
        if header.kind == Kind.PLAN:
            connection.plans[header.plan] = [np.frombuffer(p, "<i8") for p in payloads]
            if [(e.field, e.dtype) for e in header.fields] != [
                (i, 4) for i in range(len(self._names))
            ]:
                self._blame("PLAN has not a row of int64 for every field, in order.")
            return None
        assignment = self._leases.get(header.lease)
        if assignment is None or header.simulation != assignment["simulation"]:
            self._blame(f"{header.kind.name} is of lease {header.lease}, which was not assigned.")
            return None
        if header.kind == Kind.OPEN:
            self._open(connection, header, payloads, assignment)
            return None
        if header.lease not in connection.opened:
            self._blame(f"{header.kind.name} of lease {header.lease} came before its OPEN.")
            return None
        if header.kind in (Kind.END, Kind.FAIL):
            return self._last(part, header)
        if header.kind == Kind.BUNCH:
            return self._bunch(connection, part, header, payloads, assignment)
        return self._values(connection, part, header, payloads, assignment)

    def _open(
        self, connection: Connection, header: Header, payloads: Frames, assignment: dict[str, Any]
    ) -> None:
        given = np.array(list(assignment["parameters"].values()), "<f8").tobytes()
        if payloads != [given]:
            self._blame("OPEN has other parameters than the assignment, or in another order.")
        found = (header.step, header.geometry, header.flags)
        role = wire.ROLES.index(assignment["role"])
        if found != (self._position, self._scenario.shards, role):
            self._blame(f"OPEN has position, number of shards and role {found}.")
        if header.plan not in connection.plans:
            self._blame(f"OPEN names plan {header.plan}, which was not announced.")
        else:
            plans = connection.plans[header.plan]
            self.used_plans[header.lease, connection.part] = plans
        connection.opened[header.lease] = header.plan
        self._granting.opened.setdefault(header.lease, set()).add(connection.part)

    def _last(self, part: Part, header: Header) -> Callable[[], None] | None:
        word = (header.kind, header.step)
        if header.lease in part.ended:
            if part.ended[header.lease] != word:
                self._blame(f"Lease {header.lease} ended twice, and differently.")
            return None
        part.ended[header.lease] = word
        return lambda: part.ended.pop(header.lease, None) and None

    def _bunch(
        self,
        connection: Connection,
        part: Part,
        header: Header,
        payloads: Frames,
        assignment: dict[str, Any],
    ) -> Callable[[], None] | None:
        """Each step as if it had come alone; a client may do it where the welcome lets it."""
        self.used.add("bunches")
        most = int(self._scenario.stream.get("bunch_bytes", 0))
        if sum(len(p) for p in payloads[1:]) > most:
            self._blame(f"A BUNCH came with more than the {most} bytes of bunch_bytes.")
        try:
            parts = list(wire.parts_of(header, payloads))
        except wire.WireError as error:
            self._blame(f"A BUNCH is not whole: {error}")
            return None
        steps = [one.step for one, _ in parts]
        if steps != sorted(set(steps)):
            self._blame(f"A BUNCH has the steps {steps}; they should ascend.")
        undo = [
            self._values(connection, part, one, [bytes(v) for v in values], assignment)
            for one, values in parts
        ]

        def take_back() -> None:
            for each in undo:
                if each is not None:
                    each()

        return take_back

    def _values(
        self,
        connection: Connection,
        part: Part,
        header: Header,
        payloads: Frames,
        assignment: Mapping[str, Any],
    ) -> Callable[[], None] | None:
        step, lease = header.step, header.lease
        inputs = header.kind == Kind.INPUT
        names = [n for n in self._names if (n in self._inputs) == inputs]
        rows = [
            (self._names.index(n), wire.dtype_code(np.dtype(self._scenario.fields[n]["dtype"])))
            for n in names
        ]
        if [(e.field, e.dtype) for e in header.fields] != rows:
            self._blame(f"{header.kind.name} has not the fields {names} with their dtypes.")
            return None
        if header.plan not in connection.plans:
            self._blame(f"{header.kind.name} names plan {header.plan}, which was not announced.")
        elif not self._scenario.undeclared and header.plan != connection.opened.get(lease):
            self._blame(f"{header.kind.name} names another plan than the OPEN of lease {lease}.")
        if inputs:
            connection.fed.add(lease)
            if self.inputs.setdefault((lease, part.number), payloads) != payloads:
                self._blame(f"INPUT of lease {lease} came again with other values.")
            return None
        self._place(connection, part, header, assignment)
        key = (lease, step, part.number)
        if key in self.stored:
            if self.stored[key] != payloads:
                self._blame(f"Step {step} of lease {lease} came again with other values.")
            return None
        if lease in part.ended:
            self._blame(f"Step {step} of lease {lease} came first after its end.")
        self.stored[key] = payloads
        return lambda: self.stored.pop(key, None) and None

    def _place(
        self, connection: Connection, part: Part, header: Header, assignment: Mapping[str, Any]
    ) -> None:
        step, lease = header.step, header.lease
        segment = step // int(self._scenario.stream.get("segment_steps", 1))
        position, ordinal = segment % self._scenario.shards, segment // self._scenario.shards
        if position != self._position:
            self._blame(f"Step {step} came to shard {self._position} and belongs to {position}.")
        if ordinal >= self._granting.granted.get(lease, 0):
            self._blame(f"Step {step} of lease {lease} was sent without credit.")
        if any(n in self._inputs for n in self._names) and lease not in connection.fed:
            self._blame(f"Step {step} of lease {lease} came before its INPUT.")
        wanted = assignment["wanted"]
        if wanted is not None and not any(a <= segment <= b for a, b in wanted):
            self._blame(f"Step {step} of lease {lease} was sent and is not wanted.")
        call = step * max(int(f["every"]) for f in self._scenario.fields.values())
        t = self._scenario.contract.time_of(call, assignment["parameters"])
        if not (math.isnan(header.t) if t is None else header.t == t):
            self._blame(f"Step {step} has the time {header.t}, expected was {t}.")
