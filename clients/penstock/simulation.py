"""One simulation on one MPI rank: checks what the solver sends and puts it on the way.

The way of a step begins here: `send` checks it, waits for credit, and puts this rank's share of
each field on the line to the shard that the step's segment belongs to: a copy of it, or the memory
of the stream that the solver wrote it into.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Protocol

import numpy as np

from penstock import wire
from penstock.buffers import Buffers
from penstock.errors import LayoutError
from penstock.line import ALONE_BYTES, OLD_S, Line
from penstock.sender import Sender
from penstock.shipment import Shipment
from penstock.spans import Spans
from penstock.wire import FieldEntry, Header, Kind

JUST_NOW_S = 0.001  # nothing new is to be expected within it


@dataclass(frozen=True)
class Assignment:
    """A simulation given to this worker, as the coordinator put it."""

    simulation: int
    lease: int
    role: str
    attempt: int
    seed: int
    parameters: Mapping[str, float]
    shards: tuple[str, ...]
    wanted: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Assignment:
        wanted = body.get("wanted")
        return cls(
            simulation=int(body["simulation"]),
            lease=int(body["lease"]),
            role=str(body["role"]),
            attempt=int(body["attempt"]),
            seed=int(body["seed"]),
            parameters=dict(body["parameters"]),
            shards=tuple(body["shards"]),
            wanted=None if wanted is None else tuple((int(a), int(b)) for a, b in wanted),
        )

    def wants(self, segment: int) -> bool:
        """Whether the shards still need this segment."""
        return self.wanted is None or any(a <= segment <= b for a, b in self.wanted)


class Outlet(Protocol):
    """What a simulation needs of the link that it runs on."""

    segment_steps: int
    every: int
    bunch_bytes: int
    buffers: Buffers

    def shipment(self, fields: Mapping[str, Any], when: str) -> Shipment: ...
    def step_shipment(self) -> Shipment | None: ...
    def senders(self, shards: tuple[str, ...]) -> list[Sender]: ...
    def tell_plan(self, senders: list[Sender]) -> None: ...
    def header(self, kind: Kind, assignment: Assignment) -> Header: ...
    def anywhere(self, here: Callable[[], bool]) -> tuple[bool, int]: ...
    def finished(self, simulation: Simulation) -> None: ...


class Simulation:
    """A running simulation; made by `link.simulations()`.

    Attributes: id, parameters (name -> value), seed, role ("train", "validation", "test"),
    attempt (1 for the first).
    """

    def __init__(self, assignment: Assignment, outlet: Outlet) -> None:
        self.id = assignment.simulation
        self.lease = assignment.lease
        self.parameters = dict(assignment.parameters)
        self.seed = assignment.seed
        self.role = assignment.role
        self.attempt = assignment.attempt
        self.outcome: str | None = None
        self.reason = ""
        self.steps = 0  # steps sent, after `every`
        # From here to its end, and of these how long `send` waited: for room, for acknowledgements.
        self.time_s = {"seconds": 0.0, "credit": 0.0, "window": 0.0}
        self._began_s = self._called_s = time.monotonic()
        self._assignment = assignment
        self._outlet = outlet
        self._segment_steps = outlet.segment_steps
        self._calls = 0  # of `send`, without those that joined a bunch
        self._last_t: float | None = None
        self._cancelled = ""  # the reason, as soon as all ranks know
        self._unasked = 0  # for so many calls of `cancelled` there is nothing new
        self._senders = outlet.senders(assignment.shards)  # none without a server
        self._spans = Spans(outlet.buffers)
        self._lines = [
            Line(sender, self._header, outlet.buffers, self._spans, outlet.bunch_bytes)
            for sender in self._senders
        ]
        self._only = self._lines[0] if len(self._lines) == 1 else None
        self._opened = False
        self._shipment: Shipment | None = None  # of the last step; its plan has been told
        self._until, self._until_s = 0, 0.0  # steps below and before may join a bunch

    @property
    def cancelled(self) -> bool:
        """Whether the server wants no more of this simulation; collective over the MPI ranks.

        Of several ranks all get the same answer, some steps after one of them has heard it (two, or
        what they make in 0.1 s, at most 32), so that none waits for the others here.
        """
        if self._unasked:
            self._unasked -= 1
            return False
        if not self._cancelled:
            refused, unasked = self._outlet.anywhere(self._refused)
            if refused:
                self._cancelled = self.refusal or "A shard refused what another rank sent."
            else:
                self._unasked = unasked
        return bool(self._cancelled)

    @property
    def opened(self) -> bool:
        """Whether the shards know of it, and of its layout."""
        return self._opened

    @property
    def refusal(self) -> str | None:
        """The reason for which a shard refused this simulation on this rank, if one did."""
        for sender in self._senders:
            if sender.refused and self.lease in sender.refused:
                return sender.refused[self.lease]
        return None

    def inputs(self, **fields: Any) -> None:
        """Sends this rank's part of the input fields; before the first step."""
        if self._calls:
            raise LayoutError("Input fields are sent before the first step; a step went already.")
        shipment = self._outlet.shipment(fields, "input")
        values = shipment.check(fields)
        payloads = shipment.payloads(values, Spans(Buffers()))  # kept to the end, not reused
        for sender in self._open():
            header = self._header(Kind.INPUT, shipment.table)
            sender.announce(("input", self.lease), header, payloads)

    def empty(self, field: str, shape: int | Sequence[int]) -> np.ndarray:
        """An array for this rank's part of a field, to be filled and given to the next `send`.

        For large fields that a solver computes straight into it: such an array lies in the stream's
        own memory and is sent from there, without a copy, if the campaign wants it whole. Its
        content is arbitrary, its dtype the campaign's (float64 without one). Once sent it is
        read-only, and it keeps its values until the next of its field is sent or the simulation
        ends; writing through a view made before, or reading later, gives wrong values. Raises
        LayoutError for an unknown field or a shape that is not this rank's.
        """
        self._check_running()
        wanted = tuple(np.atleast_1d(shape).tolist())
        shipment = self._outlet.step_shipment()
        if shipment is None:
            return np.empty(wanted)
        spec, share = shipment.expects(field, wanted)
        joins = shipment.n_bytes < ALONE_BYTES and shipment.most(self._outlet.bunch_bytes) > 1
        if share.take is not None or joins:
            return np.empty(wanted, spec.dtype)  # a copy is needed, or costs next to nothing
        return self._spans.empty(field, wanted, share.sent_shape, spec.dtype)

    def send(self, t: float | None = None, /, **fields: Any) -> None:
        """Sends this rank's part of one step: every declared field by name, `t` in its unit.

        Blocks while the server has no room. Raises LayoutError for a field that is undeclared,
        missing or of the wrong shape, and ConnectionLost when a shard is gone for good.
        """
        if self.outcome is not None:
            self._check_running()
        if t is not None and t == self._last_t:
            raise LayoutError(
                f"Simulation {self.id} sends the time {t} twice. Send each step once; leave t out "
                "for a steady problem."
            )
        self._last_t = t
        time_sent = t if type(t) is float else _as_time(t)
        step, now_s = self.steps, time.monotonic()
        if step < self._until and now_s < self._until_s:
            bunch = (self._only or self._line_of(step // self._segment_steps)).bunch
            if bunch is not None and bunch.join(fields, step, time_sent, now_s):
                self.steps, self._called_s = step + 1, now_s
                return
        self._calls, self._until = self._calls + 1, 0
        self._glance(now_s)
        self._spans.sent(fields)
        if (self._calls - 1) % self._outlet.every:
            return
        shipment = self._outlet.shipment(fields, "step")
        values = shipment.check(fields)
        self.steps += 1
        if not self._senders:
            return
        segment = step // self._segment_steps
        if not self._assignment.wants(segment):
            return
        if shipment is not self._shipment:
            self._open()
            self._shipment = shipment
        line, ordinal = self._line_of(segment), segment // len(self._senders)
        sender = line.sender
        refusal = self.refusal
        if refusal is None and not self._has_room(sender, ordinal):
            now_s += self._await_room(sender, ordinal)
            refusal = self.refusal
        if refusal is None:
            line.put(shipment, values, step, time_sent, now_s)
            self._let_join(segment)
            self._called_s = time.monotonic()

    def end(self) -> None:
        """Says that the simulation is complete; leaving the loop body does the same."""
        if self.outcome is None:
            self._flush()
            self._close("ended", "")
            last = self._header(Kind.END, step=self.steps)
            refusal = self.refusal or self._cancelled
            if refusal:
                self._close("refused", refusal)
                last = self._header(Kind.FAIL)  # steps since the refusal were not sent
            for sender in self._open():
                sender.post(last, [])
            self._outlet.finished(self)

    def fail(self, reason: str) -> None:
        """Ends this simulation alone, with the reason that the report will show."""
        if self.outcome is None:
            self._drop()
            self._close("failed", reason)
            for sender in self._senders if self._opened else ():
                sender.post(self._header(Kind.FAIL), [])
            self._outlet.finished(self)

    def abandon(self, reason: str) -> None:
        """Called when the program goes down: as `fail`, and waits for no other rank."""
        self.fail(reason)

    def __enter__(self) -> Simulation:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is None:
            self.end()
        elif isinstance(error, Exception):
            self.fail(f"{type(error).__name__}: {error}")
            return True
        else:
            self.abandon(f"{type(error).__name__}: {error}")
        return False

    def _check_running(self) -> None:
        if self.outcome is not None:
            raise LayoutError(f"Simulation {self.id} has {self.outcome}; it takes no more steps.")

    def _line_of(self, segment: int) -> Line:
        return self._lines[segment % len(self._lines)]

    def _refused(self) -> bool:
        """Whether a shard refused it on this rank, as far as can be known now."""
        now_s = time.monotonic()
        if now_s - self._called_s > JUST_NOW_S:
            self._glance(now_s)
        return self.refusal is not None

    def _glance(self, now_s: float) -> None:
        """The solver calls in: also shards whose turn it is not are looked at, and have steps."""
        away_s, self._called_s = now_s - self._called_s, now_s
        if self.refusal is not None:
            self._drop()
        for line in self._lines:
            line.glance(now_s, away_s)

    def _close(self, outcome: str, reason: str) -> None:
        self.outcome, self.reason = outcome, reason
        self.time_s["seconds"] = time.monotonic() - self._began_s

    def _flush(self) -> None:
        if self.refusal is not None:
            self._drop()
        for line in self._lines:
            line.flush()

    def _drop(self) -> None:
        for line in self._lines:
            line.drop()

    def _let_join(self, segment: int) -> None:
        """Until when steps need no more than room in the bunch of their line.

        Beyond that there is credit to ask for, or a step that is kept back has to leave.
        """
        if self._outlet.every > 1:
            return
        n, n_segments = len(self._senders), segment + 1
        if self._assignment.wanted is None:
            granted = (sender.granted(self.lease) for sender in self._senders)
            n_segments = min(n * ordinal + at for at, ordinal in enumerate(granted))
        self._until = self._segment_steps * n_segments
        began_s = (line.bunch.began_s for line in self._lines if line.bunch is not None)
        self._until_s = min(began_s, default=0.0) + OLD_S

    def _await_room(self, sender: Sender, ordinal: int) -> float:
        """Until there is room or a refusal; returns the seconds that it took."""
        sender.flow()  # it looks but rarely of itself
        if self._has_room(sender, ordinal):
            return 0.0
        self._flush()
        began_s = time.monotonic()
        lacks = "credit" if sender.granted(self.lease) <= ordinal else "window"
        sender.wait(lambda: self._may_go_on(sender, ordinal), "room in the reservoir")
        waited_s = time.monotonic() - began_s
        self.time_s[lacks] += waited_s
        for line in self._lines:
            line.waited(waited_s)
        return waited_s

    def _may_go_on(self, sender: Sender, ordinal: int) -> bool:
        """Hears the other shards too: one that was restarted wants its steps again.

        Without them its slots stay open and its trainer waits, perhaps the room here with them.
        """
        for each in self._senders:
            if each is not sender:  # which was heard just now
                each.flow()
        if self.refusal is not None:
            return True
        return sender.granted(self.lease) > ordinal and sender.has_much_room()

    def _has_room(self, sender: Sender, ordinal: int) -> bool:
        return sender.granted(self.lease) > ordinal and sender.has_room()

    def _open(self) -> list[Sender]:
        if self._senders:
            self._outlet.tell_plan(self._senders)
        if self._senders and not self._opened:
            self._opened = True
            values = np.array(list(self.parameters.values()), dtype="<f8")
            for position, sender in enumerate(self._senders):
                sender.announce(("open", self.lease), self._open_header(position), [values])
        return self._senders

    def _open_header(self, position: int) -> Header:
        """OPEN says which segments go to the shard: those with s % geometry == step."""
        header = self._header(Kind.OPEN, step=position)
        role = wire.ROLES.index(self.role)
        return header._replace(geometry=len(self._senders), flags=role)

    def lay_out_anew(self) -> None:
        """Called before the layout changes: what is kept back leaves under the one it came in."""
        self._flush()
        self._until = 0

    def release(self) -> None:
        """Called by the link when the worker turns to the next simulation."""
        self._spans.close()
        for sender in self._senders:
            sender.withdraw(("open", self.lease))
            sender.withdraw(("input", self.lease))
            sender.forget(self.lease)

    def _header(
        self,
        kind: Kind,
        entries: tuple[FieldEntry, ...] = (),
        step: int = 0,
        t: float = math.nan,
    ) -> Header:
        base = self._outlet.header(kind, self._assignment)
        return Header(
            kind, base.campaign, base.simulation, base.lease, step, base.part, base.n_parts,
            base.plan, base.geometry, 0, 0, t, entries,
        )  # fmt: skip


def _as_time(t: Any) -> float:
    return wire.NO_TIME if t is None else float(t)
