"""Mutated frames on the data port of a shard: the real intake and slab behind a false socket.

An input is a script for a few messages: valid ones of a running simulation, with their values
behind the header or in lent memory, some of whose bytes are changed, cut off, doubled or left out,
and plain garbage. Whatever comes, nothing is raised, every answer follows WIRE.md, and what is
admitted is whole, finite and of the declared shape. Beside them a bystander streams a simulation,
which the script may name too: it arrives with its own values and is never refused.

Every few hundred inputs the shard is another one: one part a simulation, whose steps are segments;
then two parts, segments of three steps and an input field.

`make fuzz` runs it coverage-guided, `tests/unit/test_fuzz_ports.py` on random scripts.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from penstock import wire
from penstock.arena import Arena
from penstock.wire import FieldEntry, Header, Kind
from penstock_server.curve import Guard
from penstock_server.intake import Intake
from penstock_server.ledger import Ledger
from penstock_server.reservoir import Reservoir
from penstock_server.shard import Shard
from penstock_server.slab import COMMITTED, Slab, SlabSpec

CAMPAIGN = 77
SHAPE = (4, 3)
N = 12
MOST_STEPS = 4  # of a bunch
RENEWED = 500  # inputs on one slab
NAMES = (b"one", b"two", b"six")
BYSTANDER = 1 << 40  # its simulations are from here on


def lease_of(simulation: int) -> int:
    """No change of a byte makes a bystander's simulation and lease out of another one's."""
    return (1 << 20) + simulation - BYSTANDER if simulation >= BYSTANDER else simulation


class FalseFrame:
    """What is received without a copy."""

    def __init__(self, content: bytes) -> None:
        self.buffer = memoryview(content)


class FalseSocket:
    """A ROUTER that hands out what was put in; a context and its socket in one."""

    def __init__(self) -> None:
        self.waiting: deque[list[bytes]] = deque()
        self.sent: list[list[bytes]] = []
        self._leaving: list[bytes] = []
        self._rest: deque[bytes] = deque()

    def socket(self, _kind: int) -> FalseSocket:
        return self

    def setsockopt(self, *_: Any) -> None: ...
    def bind(self, _address: str) -> None: ...
    def close(self) -> None: ...

    def getsockopt_string(self, _option: int) -> str:
        return "tcp://127.0.0.1:1"

    def getsockopt(self, _option: int) -> int:
        return int(bool(self._rest))

    def recv(self, flags: int = 0, copy: bool = True) -> Any:
        if not copy:
            return FalseFrame(self.recv(flags))
        if not self._rest:
            if not self.waiting:
                assert flags & zmq.NOBLOCK, "The intake would wait for a frame that never comes."
                raise zmq.Again
            self._rest = deque(self.waiting.popleft())
        return self._rest.popleft()

    def send(self, frame: bytes, flags: int = 0) -> None:
        self._leaving.append(frame)
        if not flags & zmq.SNDMORE:
            self.sent.append(self._leaving)
            self._leaving = []


class Script:
    """Reads numbers off an input; zeros where it has ended."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def short(self) -> int:
        return self.byte() | self.byte() << 8

    def rest(self, most: int) -> bytes:
        taken = self._data[self._at : self._at + most]
        self._at += len(taken)
        return taken


class Lender:
    """Lent memory with 256 blocks of steps: all values of a block are its number, or NaN."""

    def __init__(self) -> None:
        self._arena = Arena(256 * MOST_STEPS * N * 4)
        self.offer = self._arena.offer
        memory = self._arena.allocate(256 * MOST_STEPS * N * 4)
        assert memory is not None
        self._first = self._arena.offset(memory) or 0
        blocks = memory.view("<f4").reshape(256, MOST_STEPS * N)
        blocks[:] = np.arange(256)[:, None]
        blocks[-1] = np.nan

    def place(self, block: int) -> bytes:
        return np.array([self._first + 4 * block * MOST_STEPS * N], "<u8").tobytes()

    def close(self) -> None:
        self._arena.close()


class DataPort:
    """Keeps an intake over many inputs, and makes a new one now and then."""

    def __init__(self) -> None:
        self.frames = 0
        self._inputs = 0
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-fuzz-", dir=_memory()))
        self._simulation = 0
        self._lender = Lender()
        self._build()

    def close(self) -> None:
        self._lender.close()
        self._clear()

    def _clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def lent_bytes(self) -> int:
        """Taken from lent memory since the intake is new."""
        return self._intake.counters["lent_bytes"]

    def take(self, data: bytes) -> None:
        """One input; raises AssertionError, or whatever the intake should not raise."""
        self._inputs += 1
        if self._inputs % RENEWED == 0:
            self._build()
        script = Script(data)
        self._simulation += 1
        self._peers = tuple(name + b"%d" % self._inputs for name in NAMES)  # no one is dropped yet
        bystander = Bystander(self, BYSTANDER + self._inputs)
        begun = script.byte()
        if begun < 224:  # the simulation is open before the script begins, perhaps with a step
            for choice in range(3 if begun < 112 else 4):
                for identity in self._peers[: self.n_parts]:
                    self.put(identity, self._valid(choice, identity, Script(b"")))
        for _ in range(1 + script.byte() % 12):
            identity = self._peers[max(0, script.byte() - 253) if self.n_parts == 1
                                   else script.byte() % len(NAMES)]  # fmt: skip
            self.put(identity, self._message(script, identity))
        bystander.end()
        self._check()
        bystander.check()

    def put(self, identity: bytes, message: list[bytes]) -> None:
        """One message to the intake, which takes it in."""
        self.frames += len(message)
        self._socket.waiting.append([identity, *message])
        self._intake.turn()

    def _message(self, script: Script, identity: bytes) -> list[bytes]:
        """A valid message of the simulation, or one with a few changes, or garbage."""
        choice = script.byte()
        if choice >= 240:
            return [script.rest(script.byte()) for _ in range(1 + script.byte() % 4)]
        frames = self._valid(choice % 13, identity, script)
        for _ in range(script.byte() % 4):
            at = script.short() % len(frames)
            frame = bytearray(frames[at])
            what = script.byte() % 6
            if what < 3 and frame:
                frame[script.short() % len(frame)] ^= script.byte()
            elif what == 3:
                frame = frame[: script.short() % (len(frame) + 1)]
            elif what == 4:
                frames.insert(at, bytes(frame))
            elif len(frames) > 1:
                del frames[at]
                continue
            frames[at] = bytes(frame)
        return frames

    def _valid(self, choice: int, identity: bytes, script: Script) -> list[bytes]:
        simulation = self._simulation
        others = (Kind.PART, Kind.INPUT, Kind.END, Kind.FAIL, Kind.BUNCH)
        values: dict[str, Any] = {
            "campaign": CAMPAIGN, "n_parts": self.n_parts, "part": self._part(identity), "plan": 1,
            "sequence": script.byte() % 16 if choice == 10 else self.expected(identity),
        }  # fmt: skip
        payloads: list[bytes] = []
        kind = (
            Kind.HELLO, Kind.PLAN, Kind.OPEN, Kind.PART, Kind.PART, Kind.PART, Kind.END, Kind.FAIL,
            Kind.PROBE, Kind.BYE, Kind.PART, Kind.INPUT, Kind.BUNCH,
        )[choice]  # fmt: skip
        if kind in others and script.byte() > 240:  # what somebody else is sending
            simulation = BYSTANDER + self._inputs if script.byte() & 1 else 1 + script.byte()
        values["simulation"], values["lease"] = simulation, lease_of(simulation)
        if kind == Kind.HELLO and not script.byte() & 1:
            payloads = [self._lender.offer]
        elif kind == Kind.PLAN:
            payloads = self.plan(values["part"], script.byte())
            values["plan"] = 1 + (script.byte() > 240)
            values["fields"] = tuple(FieldEntry(i, 4, len(p)) for i, p in enumerate(payloads))
        elif kind == Kind.OPEN:
            payloads, values["geometry"] = [np.array([0.5]).tobytes()], 1
        elif kind == Kind.INPUT:
            values["fields"], payloads = self._fields(script, 1, field=1)
        elif kind == Kind.PART:
            values["fields"], payloads = self._fields(script, 1)
            values["step"] = script.byte() % 8
        elif kind == Kind.BUNCH:
            n = values["step"] = 1 + script.byte() % MOST_STEPS
            steps = np.zeros(n, wire.STEP)
            steps["step"] = script.byte() % 8 + np.arange(n)
            values["fields"], blocks = self._fields(script, n)
            payloads = [steps.tobytes(), *blocks]
        elif kind == Kind.END:
            values["step"] = script.byte() % 8
        return [bytes(wire.encode(Header(kind, **values))), *payloads]

    def plan(self, part: int, kind: int = 0) -> list[bytes]:
        """A layout of the part for each field: rows, or the same as indices; or one that is wrong.

        kind: 0 to 127 rows, to 223 indices, then more than this part's.
        """
        rows = SHAPE[0] // self.n_parts
        first, n = (part * rows, rows) if kind < 224 else (0, 1 + kind % SHAPE[0])
        box = [0, 2, *SHAPE, first, 0, n, SHAPE[1]]
        indices = [1, 2, *SHAPE, *range(first * SHAPE[1], (first + n) * SHAPE[1])]
        payload = np.array(box if kind < 128 or kind >= 224 else indices, "<i8").tobytes()
        return [payload] * len(self._intake.shard.names)

    def expected(self, identity: bytes) -> int:
        """The number of the connection's next message."""
        peer = self._intake._peers.known.get(identity)
        return 0 if peer is None else peer.expected

    def _part(self, identity: bytes) -> int:
        """The first two of the names are the parts of a simulation in two, the third is both."""
        return min(1, self._peers.index(identity)) if self.n_parts == 2 else 0

    def _fields(
        self, script: Script, n: int, field: int = 0
    ) -> tuple[tuple[FieldEntry, ...], list[bytes]]:
        """The row of a field in n steps, and its values or where they lie in lent memory."""
        value, lent, size = script.byte(), script.byte() & 1, N // self.n_parts
        if lent and field == 0:
            return (FieldEntry(0, 1, 4 * size, wire.LENT),), [self._lender.place(value)]
        return (FieldEntry(field, 1, 4 * size),), [np.full(n * size, value, "<f4").tobytes()]

    def _check(self) -> None:
        for frames in self._socket.sent:
            assert frames[0].startswith((*NAMES, Bystander.NAME))
            answer = wire.decode(frames[1])
            assert answer.kind in (Kind.ACK, Kind.RESYNC, Kind.REFUSED)
            if answer.kind == Kind.ACK and len(frames) > 2:
                wire.decode_grants(frames[2])
        self._socket.sent.clear()
        shard = self._intake.shard
        slab = shard.slab
        held = np.flatnonzero(slab.descriptor["state"] == COMMITTED)
        rows = slab.descriptor[held]
        assert np.isfinite(slab.fields["u"][held]).all(), "A value that is not finite got in."
        length = slab.spec.segment_steps
        assert (rows["n_steps"] <= length).all()
        assert (rows["n_steps"] > 0).all()
        assert (rows["generation"] % 2 == 0).all()
        there = np.arange(length) < rows["n_steps"][:, None]  # (slots, steps)
        missing = slab.parts[held, :, 0] != 2 ** rows["n_parts"].astype(np.uint64)[:, None] - 1
        assert not (missing & there).any(), "A step without a part was admitted."
        assert (rows["role"] == 0).all(), "A held-out simulation came to a training shard."
        places = set(zip(rows["simulation"].tolist(), rows["segment"].tolist()))
        assert len(places) == len(held), "A segment was admitted twice."
        assert all(shard.ledger.admitted(*place) for place in places)
        self._make_room(shard)

    def _make_room(self, shard: Shard) -> None:
        """The lease is over, and what came is drawn and may be evicted."""
        shard.supersede(self._simulation, self._simulation)
        bystander = BYSTANDER + self._inputs
        shard.supersede(bystander, lease_of(bystander))
        samples = shard.choose(64, unseen_only=True)
        shard.reservoir.confirm(samples, self._inputs)
        shard.snapshot(self._inputs)
        self._intake.turn()
        self._socket.sent.clear()

    def _build(self) -> None:
        self._clear()
        self._folder.mkdir()
        field = {"u": (SHAPE, "float32")}
        self.n_parts = 1 + self._inputs // RENEWED % 2  # of a simulation at this shard
        if self.n_parts == 2:
            spec = SlabSpec(64, 3, 1, 1, field, {"a": (SHAPE, "float32")}, n_rows=128, max_parts=4)
        else:
            spec = SlabSpec(64, 1, 1, 1, field, {}, n_rows=0, max_parts=4)
        ledger = Ledger(self._folder / "ledger")
        slab = Slab.create(self._folder, spec)
        reservoir = Reservoir("reservoir", slab.drawn, np.random.default_rng(0))
        self._socket = FalseSocket()
        context: Any = self._socket
        shard = Shard(slab, ledger, reservoir, [*spec.fields, *spec.inputs], max_steps=6)
        self._intake = Intake(
            context, shard, CAMPAIGN, "tcp://127.0.0.1:*", Guard(context, None, "fuzzed")
        )
        self._intake._say_at_s = math.inf  # nothing: it would be one line for each new intake


class Bystander:
    """A simulation in steps of its own values, of which the script's peers are no part."""

    NAME = b"bystander"
    STEPS = 2

    def __init__(self, port: DataPort, simulation: int) -> None:
        self._port, self.simulation = port, simulation
        self._peers = [self.NAME + b"%d of %d" % (p, simulation) for p in range(port.n_parts)]
        for part in range(port.n_parts):
            self._say(part, Kind.HELLO)
            self._say(part, Kind.PLAN, port.plan(part), code=4)
            self._say(part, Kind.OPEN, [np.array([0.5]).tobytes()], geometry=1)
            if port.n_parts == 2:
                self._say(part, Kind.INPUT, [self._values(-2)], field=1)
        self._step(0)

    def end(self) -> None:
        self._step(1)
        for part in range(len(self._peers)):
            self._say(part, Kind.END, step=self.STEPS)

    def check(self) -> None:
        """All of it is there, as it was sent."""
        shard = self._port._intake.shard
        assert self.simulation in shard.delivered, "A bystander was disturbed."
        length = shard.spec.segment_steps
        for step in range(self.STEPS):
            slot = shard.slots.find(self.simulation, step // length)
            if slot is not None:  # else it was drawn and evicted
                values = shard.slab.fields["u"][slot, step % length]
                assert (values == self._value(step)).all(), "A bystander's values were changed."

    def _step(self, step: int) -> None:
        for part in range(len(self._peers)):
            self._say(part, Kind.PART, [self._values(step)], step=step, field=0)

    def _value(self, step: int) -> int:
        return 1000 + self.simulation % 1000 + step

    def _values(self, step: int) -> bytes:
        return np.full(N // len(self._peers), self._value(step), "<f4").tobytes()

    def _say(
        self,
        part: int,
        kind: Kind,
        payloads: list[bytes] | None = None,
        field: int | None = None,
        code: int = 1,
        **values: Any,
    ) -> None:
        payloads = payloads or []
        first = 0 if kind == Kind.PLAN else field
        if first is not None:
            values["fields"] = tuple(
                FieldEntry(first + i, code, len(p)) for i, p in enumerate(payloads)
            )
        header = Header(
            kind, CAMPAIGN, self.simulation, lease_of(self.simulation), part=part,
            n_parts=len(self._peers), plan=1, sequence=self._port.expected(self._peers[part]),
            **values,
        )  # fmt: skip
        self._port.put(self._peers[part], [bytes(wire.encode(header)), *payloads])


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
