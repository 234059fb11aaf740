"""The counting server of `penstock try`: speaks the wire like a campaign, and counts.

A worker gets a welcome, simulations and endless credit; what it sends is looked at and dropped.
`Desk` answers the control path and `Counts` takes the data path, both without sockets; the
CountingServer here puts them on two ROUTERs in the caller's thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import zmq

from penstock import control, wire
from penstock.wire import Header, Kind, WireError
from penstock_server.config import Campaign
from penstock_server.plans import PlanError, Target, read_target

CAMPAIGN = 0x7472795F70656E73  # "try_pens"
SHARD = "0"
ENDLESS = 0xFFFFFFFF  # segments of credit
LARGEST_MESSAGE = 4 << 30
RESYNC_PAUSE_S = 1.0
Array = npt.NDArray[Any]


@dataclass
class FieldSeen:
    """What has come of one field, all parts together."""

    dtypes: set[str] = field(default_factory=set)
    n_bytes: int = 0
    not_finite: int = 0
    first_not_finite: str = ""  # where
    low: float = math.inf
    high: float = -math.inf
    problems: list[str] = field(default_factory=list)

    def complain(self, problem: str) -> None:
        """Keeps each sentence once, and the first few."""
        if problem not in self.problems and len(self.problems) < 5:
            self.problems.append(problem)


@dataclass
class SimulationSeen:
    """One simulation; times in seconds of the server's clock."""

    simulation: int
    parameters: dict[str, float]
    assigned_s: float
    n_parts: int = 1
    first_open_s: float | None = None
    first_part_s: float | None = None
    has_inputs: bool = False
    ended_s: float | None = None
    ended_parts: set[int] = field(default_factory=set)
    outcome: str = "running"
    reason: str = ""
    n_steps: int | None = None
    t: list[float] = field(default_factory=list)  # of complete steps
    done_s: list[float] = field(default_factory=list)  # when each step was complete
    spread_s: list[float] = field(default_factory=list)  # from its first part to its last
    n_bytes: int = 0
    twice: int = 0
    open_steps: dict[int, tuple[set[int], float]] = field(default_factory=dict)
    complete: set[int] = field(default_factory=set)

    def take(self, step: int, part: int, t: float, now: float) -> None:
        """A part of a step has come."""
        if self.first_part_s is None:
            self.first_part_s = now
        parts, began = self.open_steps.setdefault(step, (set(), now))
        if part in parts or step in self.complete:
            self.twice += 1
            return
        parts.add(part)
        if len(parts) == self.n_parts:
            del self.open_steps[step]
            self.complete.add(step)
            self.done_s.append(now)
            self.spread_s.append(now - began)
            self.t.append(t)


class Counts:
    """What has been learned from the data path. Fields are told apart by their index."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names: dict[int, str] = dict(enumerate(names))
        self.fields: dict[int, FieldSeen] = {}
        self.simulations: dict[int, SimulationSeen] = {}
        self.shapes: dict[int, dict[int, tuple[int, ...]]] = {}  # field -> part -> global shape
        self.targets: dict[int, dict[int, Target]] = {}  # field -> part -> what it owns
        self.declared: dict[str, dict[str, Any]] = {}  # by the request `fields`
        self.inputs: set[int] = set()
        self.problems: list[str] = []

    def name(self, index: int) -> str:
        return self.names.get(index, f"field {index}")

    def seen(self, index: int) -> FieldSeen:
        return self.fields.setdefault(index, FieldSeen())

    def declare(self, fields: Mapping[str, Mapping[str, Any]]) -> None:
        """The request `fields`: names, global shapes and indices, before the first plan."""
        for name, spec in fields.items():
            self.declared[name] = dict(spec)
            self.names[int(spec["index"])] = name

    def assign(self, simulation: int, parameters: dict[str, float], now: float) -> None:
        self.simulations[simulation] = SimulationSeen(simulation, parameters, now)

    def take(self, header: Header, payloads: Sequence[bytes], now: float) -> None:
        """One message of the data path, in order and once."""
        if header.kind == Kind.PLAN:
            self._plan(header, payloads)
            return
        simulation = self.simulations.get(header.simulation)
        if simulation is None:
            self._complain(f"Simulation {header.simulation} was sent and never assigned.")
        elif header.kind == Kind.OPEN:
            simulation.n_parts = header.n_parts
            if simulation.first_open_s is None:
                simulation.first_open_s = now
        elif header.kind in (Kind.PART, Kind.INPUT):
            self._values(simulation, header, payloads)
            simulation.n_bytes += sum(map(len, payloads))
            simulation.has_inputs |= header.kind == Kind.INPUT
            if header.kind == Kind.PART:
                simulation.take(header.step, header.part, header.t, now)
        elif header.kind == Kind.END:
            self._end(simulation, header, now)

    def previous(self, body: Mapping[str, Any], now: float) -> None:
        """How the worker says that a simulation ended."""
        simulation = self.simulations.get(int(body["simulation"]))
        if simulation is not None and simulation.outcome == "running":
            simulation.outcome = str(body["outcome"])
            simulation.reason = str(body.get("reason", ""))
            if simulation.ended_s is None:
                simulation.ended_s = now

    def layout(self, index: int) -> list[str]:
        """What is wrong with who owns what of a field; empty if every value has one owner."""
        shapes, targets = self.shapes.get(index, {}), self.targets.get(index, {})
        if len(set(shapes.values())) > 1:
            told = "; ".join(f"rank {p}: {s}" for p, s in sorted(shapes.items()))
            return [f"the ranks disagree on the global shape: {told}"]
        if not targets:
            return []
        shape = next(iter(shapes.values()))
        owners = np.zeros(shape, dtype=np.uint16)
        for target in targets.values():
            view = owners.reshape(-1) if isinstance(target.where, np.ndarray) else owners
            view[target.where] += 1
        found = []
        if shared := int(np.count_nonzero(owners > 1)):
            found.append(
                f"{shared} of {owners.size} values are sent by more than one rank (ghosts?); "
                "send owned values only"
            )
        if missing := int(np.count_nonzero(owners == 0)):
            found.append(f"{missing} of {owners.size} values are sent by no rank")
        return found

    def _plan(self, header: Header, payloads: Sequence[bytes]) -> None:
        for entry, payload in zip(header.fields, payloads, strict=False):
            numbers = np.frombuffer(payload, dtype="<i8") if len(payload) % 8 == 0 else np.zeros(0)
            n_axes = int(numbers[1]) if len(numbers) > 1 else -1
            shape = tuple(int(n) for n in numbers[2 : 2 + max(0, n_axes)])
            self.shapes.setdefault(entry.field, {})[header.part] = shape
            self.targets.setdefault(entry.field, {}).pop(header.part, None)
            try:
                target = read_target(self.name(entry.field), shape, payload)
            except PlanError as error:
                self.seen(entry.field).complain(f"rank {header.part}: {error}")
            else:
                self.targets[entry.field][header.part] = target

    def _values(
        self, simulation: SimulationSeen, header: Header, payloads: Sequence[bytes]
    ) -> None:
        where = f"simulation {simulation.simulation}, step {header.step}, rank {header.part}"
        if len(payloads) != len(header.fields):
            n = len(header.fields)
            self._complain(f"A message announced {n} fields and had {len(payloads)}: {where}.")
        for entry, payload in zip(header.fields, payloads, strict=False):
            seen = self.seen(entry.field)
            if header.kind == Kind.INPUT:
                self.inputs.add(entry.field)
            try:
                dtype = wire.code_dtype(entry.dtype)
                values = np.frombuffer(payload, dtype=dtype)
            except ValueError as error:
                seen.complain(f"{where}: {error}")
                continue
            seen.dtypes.add(dtype.name)
            seen.n_bytes += len(payload)
            target = self.targets.get(entry.field, {}).get(header.part)
            if target is None:
                seen.complain(f"{where}: it came without a layout; send it from the first step on")
            elif target.n != len(values):
                seen.complain(f"{where}: {len(values)} values came, and its layout has {target.n}")
            _look(seen, values, where)

    def _end(self, simulation: SimulationSeen, header: Header, now: float) -> None:
        simulation.ended_parts.add(header.part)
        if simulation.n_steps not in (None, header.step):
            self._complain(
                f"The ranks disagree on the length of simulation {simulation.simulation}: "
                f"{simulation.n_steps} steps and, on rank {header.part}, {header.step}."
            )
        simulation.n_steps = header.step
        if len(simulation.ended_parts) == simulation.n_parts:
            simulation.ended_s = now

    def _complain(self, problem: str) -> None:
        if problem not in self.problems and len(self.problems) < 10:
            self.problems.append(problem)


def _look(seen: FieldSeen, values: Array, where: str) -> None:
    finite = np.isfinite(values)
    n_finite = int(np.count_nonzero(finite))
    if n_finite < len(values):
        seen.not_finite += len(values) - n_finite
        seen.first_not_finite = seen.first_not_finite or where
        values = values[finite]
    if n_finite:
        seen.low = min(seen.low, float(values.min()))
        seen.high = max(seen.high, float(values.max()))


class Desk:
    """Answers the control path: a coordinator of one agent, one worker and few simulations.

    points: the inputs of the simulations to hand out. `over`: no more is handed out. `ending`: the
    program is to be ended.
    """

    def __init__(
        self,
        counts: Counts,
        welcome: Mapping[str, Any],
        points: Sequence[dict[str, float]],
        seed: int = 1,
    ) -> None:
        self.over = self.ending = False
        self.greeted_s: float | None = None
        self.started_s: float | None = None
        self.over_s: float | None = None  # the worker was told so
        self.n_parts = 0
        self.exit_code: int | None = None
        self.stderr_tail = ""
        self.starts = 0
        self.finished = False  # the program has ended and is not started again
        self._counts, self._welcome, self._points, self._seed = counts, welcome, points, seed
        self._handed = 0
        self._handed_before_start = 0
        self._answers: dict[tuple[str, int], dict[str, Any]] = {}

    @property
    def exhausted(self) -> bool:
        """Whether every simulation was handed out."""
        return self.over or self._handed >= len(self._points)

    def answer(self, request: Mapping[str, Any], now: float) -> dict[str, Any]:
        """The reply to a request; the same for one that is repeated."""
        kind = request.get("kind")
        if kind == "hello":
            self.greeted_s = self.greeted_s if self.greeted_s is not None else now
            self.n_parts = int(request.get("parts", 1))
            return {"kind": "welcome", **self._welcome}
        if kind == "fields":
            self._counts.declare(request["fields"])
            return {"kind": "fields"}
        if kind == "book":
            return {"kind": "book", "shards": self._welcome["shards"]}
        if kind in ("next", "fail"):
            return self._work(request, now)
        if kind == "beat":
            return {"kind": "orders", **self._order(request, now)}
        return {"kind": "refused", "why": f"`penstock try` does not know the request {kind!r}."}

    def _work(self, request: Mapping[str, Any], now: float) -> dict[str, Any]:
        if request["kind"] == "fail":
            self._counts.previous({**request, "outcome": "failed"}, now)
            return {"kind": "noted"}
        key = (str(request["worker"]), int(request["sequence"]))
        if key not in self._answers:
            if request.get("previous"):
                self._counts.previous(request["previous"], now)
            self._answers[key] = self._next(bool(request.get("leaving")), now)
        return self._answers[key]

    def _next(self, leaving: bool, now: float) -> dict[str, Any]:
        if leaving or self.exhausted:
            self.over_s = now if self.exhausted and self.over_s is None else self.over_s
            return {"kind": "over"}
        number, self._handed = self._handed, self._handed + 1
        parameters = self._points[number]
        self._counts.assign(number, parameters, now)
        return {
            "kind": "assignment", "simulation": number, "lease": number + 1, "role": "train",
            "attempt": 1, "seed": self._seed + number, "parameters": parameters,
            "shards": [SHARD], "wanted": None,
        }  # fmt: skip

    def _order(self, beat: Mapping[str, Any], now: float) -> dict[str, Any]:
        """A reply may be lost: what was ordered is ordered again until a beat shows it."""
        state, worker = beat.get("state"), f"w{self.starts}"
        self.stderr_tail = str(beat.get("stderr_tail") or self.stderr_tail)
        if state == "exited" and beat.get("worker") == worker:
            self.exit_code = beat.get("exit_code")
            if not self._may_restart():
                self.finished = True
                return {"order": "leave"}
            self.starts += 1
        elif state == "idle" and not self.starts:
            self.starts, self.started_s = 1, now
        elif state not in ("idle", "exited"):
            ends = self.ending and state in ("running", "stopped")
            return {"order": "end" if ends else "go_on"}
        return {"order": "start", "worker": f"w{self.starts}"}

    def _may_restart(self) -> bool:
        """A program that runs one simulation and exits is started again for the next."""
        progress = self._handed > self._handed_before_start
        self._handed_before_start = self._handed
        done = self.finished or self.ending or self.exhausted
        return progress and not self.exit_code and not done


@dataclass
class _Peer:
    """One connection: a rank of the program, with the number of its next message."""

    part: int
    greeting: int
    expected: int = 0
    leases: set[int] = field(default_factory=set)


class CountingServer:
    """Two ROUTERs on the loopback interface; call `turn` in a loop, then `close`.

    `busy_s` is the time spent on messages; the program may have waited so long at most.
    """

    def __init__(self, counts: Counts) -> None:
        self.busy_s = 0.0
        self._counts = counts
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._control = self._router(control.LARGEST_BYTES)
        self._data = self._router(LARGEST_MESSAGE)
        self.address = self._control.getsockopt_string(zmq.LAST_ENDPOINT)
        self.data_address = self._data.getsockopt_string(zmq.LAST_ENDPOINT)
        self._poller = zmq.Poller()
        self._poller.register(self._control, zmq.POLLIN)
        self._poller.register(self._data, zmq.POLLIN)
        self._peers: dict[bytes, _Peer] = {}
        self._resynced: dict[bytes, float] = {}

    def welcome(self, campaign: Campaign | None) -> dict[str, Any]:
        """What a worker is told; without a campaign, that its fields are to be learned."""
        fields, stream = {}, {"undeclared": True, "segment_steps": 1, "window_bytes": 1 << 26}
        if campaign is not None:
            fields = {name: spec.model_dump(mode="json") for name, spec in campaign.fields.items()}
            stream = campaign.stream.model_dump(mode="json")
        return {
            "campaign": CAMPAIGN,
            "name": campaign.name if campaign else "try",
            "fields": fields,
            "stream": stream,
            "shards": {SHARD: {"address": self.data_address, "epoch": 1}},
        }

    def turn(self, desk: Desk, timeout_s: float) -> None:
        """Waits for messages and answers them."""
        ready = dict(self._poller.poll(round(1000 * timeout_s)))
        began = time.monotonic()
        if self._control in ready:
            self._answer(desk)
        if self._data in ready:
            for _ in range(64):
                try:
                    identity, frame, *payloads = self._data.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                except ValueError:
                    continue  # no message of ours
                self._take(identity, frame, payloads)
            self.busy_s += time.monotonic() - began

    def close(self) -> None:
        """May be called twice."""
        if not self._context.closed:
            self._control.close(linger=200)
            self._data.close(linger=200)
            self._context.term()

    def _router(self, largest: int) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        router.setsockopt(zmq.MAXMSGSIZE, largest)
        router.setsockopt(zmq.RCVHWM, 0)
        router.setsockopt(zmq.SNDHWM, 0)
        router.bind("tcp://127.0.0.1:*")
        return router

    def _answer(self, desk: Desk) -> None:
        identity, *frames = self._control.recv_multipart()
        number = None
        try:
            request = control.decode(frames[0] if frames else b"")
            number = request.get("request")
            reply = desk.answer(request, time.monotonic())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reply = {"kind": "refused", "why": f"The request is not understood: {error}."}
        self._control.send_multipart([identity, control.encode({**reply, "request": number})])

    def _take(self, identity: bytes, frame: bytes, payloads: list[bytes]) -> None:
        try:
            header = wire.decode(frame)
        except WireError:
            return
        if header.campaign != CAMPAIGN:
            return
        if header.kind == Kind.HELLO:
            self._peers[identity] = _Peer(header.part, header.step)
            self._resynced.pop(identity, None)
            self._acknowledge(identity)
            return
        peer = self._peers.get(identity)
        if header.kind == Kind.BYE:
            self._peers.pop(identity, None)
        elif peer is None or header.sequence > peer.expected:
            self._resync(identity, again=header.kind == Kind.PROBE)
        elif header.kind == Kind.PROBE or header.sequence < peer.expected:
            self._acknowledge(identity)
        else:
            peer.expected += 1
            if header.kind == Kind.OPEN:
                peer.leases.add(header.lease)
            elif header.kind in (Kind.END, Kind.FAIL):
                peer.leases.discard(header.lease)
            self._counts.take(header, payloads, time.monotonic())
            self._acknowledge(identity)

    def _acknowledge(self, identity: bytes) -> None:
        peer = self._peers[identity]
        header = Header(Kind.ACK, CAMPAIGN, step=peer.greeting, sequence=peer.expected)
        grants = wire.encode_grants([(lease, ENDLESS) for lease in peer.leases])
        self._data.send_multipart([identity, bytes(wire.encode(header)), grants])

    def _resync(self, identity: bytes, again: bool) -> None:
        now = time.monotonic()
        if again or now - self._resynced.get(identity, -math.inf) >= RESYNC_PAUSE_S:
            self._resynced[identity] = now
            resync = bytes(wire.encode(Header(Kind.RESYNC, CAMPAIGN)))
            self._data.send_multipart([identity, resync])
