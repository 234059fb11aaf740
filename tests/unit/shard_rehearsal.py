"""A shard with scripted workers, trainer and crashes; no sockets, no clock, one seed.

Every line that the shard executes may be its last: `crash` stops it there, as kill -9 would, and
builds a new Shard from what stands in the slab and the ledger.
"""

from __future__ import annotations

import random
import sys
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from penstock.wire import STEP, FieldEntry, Header, Kind, dtype_code
from penstock_server.admission_journal import JOURNAL
from penstock_server.door import Refusal
from penstock_server.ledger import Ledger
from penstock_server.plans import Plan, read_target
from penstock_server.reservoir import Reservoir
from penstock_server.shard import Shard
from penstock_server.slab import COMMITTED, FREE, OPEN, Slab, SlabSpec

SHAPE = (4, 3)
CRASHABLE = (
    "shard.py", "credit.py", "ledger.py", "reservoir.py", "input_rows.py", "streams.py",
    "admission_journal.py", "slots.py", "descriptors.py", "bunches.py",
)  # fmt: skip


class Crash(BaseException):
    """The receiver was killed at this line."""


@dataclass(frozen=True)
class Setting:
    """What one rehearsal is about; `steps` by simulation."""

    seed: int
    steps: tuple[int, ...]
    n_slots: int = 4
    segment_steps: int = 1
    window: int = 1
    apart: int = 1  # steps of a sample
    position: int = 0
    stride: int = 1
    policy: str = "reservoir"
    inputs: bool = False
    crashes: bool = False
    deaths: bool = False


@dataclass(eq=False)
class Part:
    """One MPI rank of one worker on one simulation, with its window of unacknowledged messages."""

    simulation: int
    lease: int
    part: int
    n_parts: int
    plan: Plan
    rows: Any  # what it owns: an index of the field
    script: list[int | str]  # steps, between "input" and "end"
    at: int = 0
    acked: int = 0
    sent: int = 0
    opened: bool = False

    @property
    def done(self) -> bool:
        return self.acked == len(self.script)


@dataclass
class Run:
    """What the shard was seen to do."""

    crashes: int = 0
    deaths: int = 0
    duplicates: int = 0
    bunches: int = 0
    crashed_bunches: int = 0  # the receiver died while it admitted them
    refusals: int = 0


def content(simulation: int, step: int) -> np.ndarray:
    return (1000 * simulation + step + np.arange(12, dtype="f4") / 16).reshape(SHAPE)


@lru_cache
def _table(n_bytes: int) -> tuple[FieldEntry, ...]:
    return (FieldEntry(0, dtype_code(np.dtype("f4")), n_bytes),)


def table(values: np.ndarray) -> tuple[FieldEntry, ...]:
    """The same object for the same table, as the wire's decoder has it."""
    return _table(values.nbytes)


def coefficient(simulation: int) -> np.ndarray:
    return np.array([simulation + 0.5, -simulation], dtype="f8")


class Rehearsal:
    """Runs until every simulation is delivered; an AssertionError tells which rule was broken."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.folder, self.set = folder, setting
        self.random = random.Random(setting.seed)
        self.run = Run()
        spec = SlabSpec(
            n_slots=setting.n_slots,
            segment_steps=setting.segment_steps,
            window=setting.window,
            n_parameters=1,
            fields={"u": (SHAPE, "float32")},
            inputs={"k": ((2,), "float64")} if setting.inputs else {},
            n_rows=setting.n_slots + len(setting.steps) + 1,
            max_parts=70,
            stride=setting.apart,
        )
        self.span = spec.span
        Slab.create(folder, spec)
        self.lease = self.batch = self.covered = 0
        self.promised: list[tuple[np.ndarray, np.ndarray]] = []
        self.workers: dict[int, list[Part]] = {}
        self.shard = self.build()
        for simulation in range(len(setting.steps)):
            self.assign(simulation)

    def build(self) -> Shard:
        slab = Slab.attach(self.folder, writable=True)
        rng = np.random.default_rng(self.random.randrange(2**32))
        order = ["u", "k"] if self.set.inputs else ["u"]
        return Shard(
            slab,
            Ledger(self.folder / "ledger"),
            Reservoir(self.set.policy, slab.drawn, rng),
            order,
            max_steps=max(self.set.steps) + 3,
            checksums=True,
            journal=self.folder / "journal",
        )

    # -- workers ---------------------------------------------------------------------------------

    def assign(self, simulation: int) -> None:
        """A new lease on any number of parts, which begins at the first step."""
        self.lease += 1
        n_parts = self.random.choice([1, 1, 2, 3, 12])
        cuts = sorted(self.random.sample(range(1, 12), n_parts - 1))
        flat = np.split(np.arange(12), cuts)
        steps = [s for s in range(self.set.steps[simulation]) if self.mine(s)]
        begin: list[int | str] = ["input"] if self.set.inputs else []
        self.workers[simulation] = []
        for part, box in enumerate(flat):
            shuffled = self.random.sample(box.tolist(), len(box))
            own = np.array(shuffled) if self.random.random() < 0.3 else box
            plan = self.make_plan(own, part, n_parts)
            script = [*begin, *steps, "end"]
            self.workers[simulation].append(
                Part(simulation, self.lease, part, n_parts, plan, own, script)
            )

    def mine(self, step: int) -> bool:
        return step // self.set.segment_steps % self.set.stride == self.set.position

    def make_plan(self, own: np.ndarray, part: int, n_parts: int) -> Plan:
        whole = np.array_equal(own, np.arange(12))
        layout = [0, 2, *SHAPE, 0, 0, *SHAPE] if whole else [1, 2, *SHAPE, *own]
        payloads = [np.array(layout, dtype="<i8").tobytes()]
        shapes: list[tuple[int, ...]] = [SHAPE]
        if self.set.inputs:  # the first part owns all of it
            rest = [0, 2] if part == 0 else [0, 0]
            payloads.append(np.array([0, 1, 2, *rest], dtype="<i8").tobytes())
            shapes.append((2,))
        pairs = enumerate(zip(shapes, payloads))
        targets = {i: read_target("u", shape, payload) for i, (shape, payload) in pairs}
        return Plan(targets, b"%d of %d: " % (part, n_parts) + b"".join(payloads))

    def header(self, part: Part, kind: Kind, **more: Any) -> Header:
        return Header(
            kind, 1, part.simulation, part.lease, part=part.part, n_parts=part.n_parts, **more
        )

    def open(self, part: Part) -> None:
        header = self.header(part, Kind.OPEN, step=self.set.position)
        header = header._replace(geometry=self.set.stride)
        peer = b"%d.%d" % (part.lease, part.part)
        self.shard.open(header, np.float64(part.simulation).tobytes(), peer, part.plan)
        if self.set.inputs:  # announced again with every OPEN
            self.send_inputs(part)

    def send_inputs(self, part: Part) -> None:
        values = coefficient(part.simulation) if part.part == 0 else np.empty(0)
        header = self.header(part, Kind.INPUT, fields=(FieldEntry(1, 2, values.nbytes),))
        self.shard.receive_inputs(header, [values.tobytes()])

    def may_send(self, part: Part) -> bool:
        """The client's own rule: a message of step s needs credit for its segment."""
        if not part.opened:
            return not part.done
        if part.at == len(part.script):
            return False
        what = part.script[part.at]
        if isinstance(what, str) or part.at < part.sent:  # a resend needs no new credit
            return True
        return self.granted(part, what)

    def granted(self, part: Part, step: int) -> bool:
        """Whether there is credit for the segment of the step."""
        stream = self.shard.streams.get(part.simulation)
        granted = stream.granted if stream is not None and stream.lease == part.lease else 0
        return step // self.set.segment_steps // self.set.stride < granted

    def send(self, part: Part) -> None:
        """One message; the acknowledgement may be lost."""
        if not part.opened:
            self.open(part)
            part.opened, part.at = True, part.acked
            return
        part.sent = max(part.at + 1, part.sent)
        what = part.script[part.at]
        if what == "input":
            self.send_inputs(part)
        elif what == "end":
            stream = self.shard.find(self.header(part, Kind.END))
            self.shard.end(stream, part.part, self.set.steps[part.simulation])
        elif not self.send_bunch(part):
            self.send_step(part, int(what))
        part.at += 1
        if self.random.random() < 0.6:
            part.acked = part.at

    def send_bunch(self, part: Part) -> bool:
        """The steps for which there is credit in one message; False: they are to come alone."""
        steps = [s for s in part.script[part.at :] if isinstance(s, int) and self.granted(part, s)]
        if len(steps) < 2 or self.random.random() < 0.5:
            return False
        steps = steps[: self.random.randint(2, len(steps))]
        numbers = np.zeros(len(steps), STEP)
        numbers["step"], numbers["t"] = steps, [0.5 * s for s in steps]
        values = [content(part.simulation, s).reshape(-1)[part.rows] for s in steps]
        header = self.header(part, Kind.BUNCH, step=len(steps), fields=table(values[0]))
        if not self.shard.receive_bunch(header, numbers, [np.concatenate(values).tobytes()]):
            return False
        self.run.bunches += 1
        part.at += len(steps) - 1
        part.sent = max(part.at + 1, part.sent)
        return True

    def send_step(self, part: Part, step: int) -> None:
        values = content(part.simulation, step).reshape(-1)[part.rows]
        header = self.header(part, Kind.PART, step=step, t=0.5 * step, fields=table(values))
        reception = self.shard.receive(header)
        for array in reception.arrays:
            array[:] = values
        self.run.duplicates += reception.opened is None
        self.shard.receive_done(reception)

    # -- trainer ---------------------------------------------------------------------------------

    def draw(self, k: int) -> None:
        samples = self.shard.choose(k, unseen_only=self.random.random() < 0.3)
        if len(samples):
            self.promised.append((samples, self.generations(samples)))

    def train(self) -> None:
        """The oldest promised batch is trained on, as the dispenser reports it."""
        if self.promised:
            samples, generations = self.promised.pop(0)
            self.batch += 1
            still = samples[self.generations(samples) == generations]
            self.shard.reservoir.confirm(still, self.batch)

    def generations(self, samples: np.ndarray) -> np.ndarray:
        spec = self.shard.spec
        return self.shard.slab.descriptor["generation"][samples // spec.windows].copy()

    def snapshot(self) -> None:
        self.covered = self.batch
        self.shard.snapshot(self.covered)

    # -- the course of things --------------------------------------------------------------------

    def play(self) -> Run:
        """Any order of events until everything is delivered; bounded, so that nothing hangs."""
        for turn in range(4000):
            if self.finished():
                self.check_end()
                return self.run
            self.attempt(self.event(turn))
            self.check()
        standing = {s: vars(stream) for s, stream in self.shard.streams.items()}
        raise AssertionError(f"It does not end: {standing}, {self.shard.reservoir.n_available}")

    def event(self, turn: int) -> Callable[[], None]:
        roll = self.random.random()
        ready = [p for parts in self.workers.values() for p in parts if self.may_send(p)]
        if self.set.deaths and roll < 0.01:
            return self.die
        if roll < 0.7 and ready:
            part = self.random.choice(ready)
            return lambda: self.send(part)
        if roll < 0.75:
            return self.snapshot
        if roll < 0.82:
            k = self.random.randint(1, 4)
            return lambda: self.draw(k)
        if roll < 0.88:
            return self.train
        if roll < 0.92:
            return self.acknowledge
        return lambda: self.shard.credit.grant() and None

    def acknowledge(self) -> None:
        for part in self.workers[self.random.randrange(len(self.set.steps))]:
            if part.opened:
                part.acked = part.at

    def attempt(self, event: Callable[[], None]) -> None:
        """Runs the event; with crashes, it may be cut off at any line of the shard's files."""
        if not self.set.crashes or event == self.die or self.random.random() > 0.06:
            event()
            return
        left = self.random.randrange(1, self.random.choice((120, 600)))

        def local(frame: FrameType, what: str, value: Any) -> Any:
            nonlocal left
            if what == "line":
                left -= 1
                if left == 0:
                    raise Crash
            return local

        def entry(frame: FrameType, what: str, value: Any) -> Any:
            own = frame.f_code.co_filename.endswith(CRASHABLE)
            return local if own and "penstock_server" in frame.f_code.co_filename else None

        before = sys.gettrace()
        sys.settrace(entry)
        try:
            event()
        except Crash as crash:
            sys.settrace(before)
            frames = [frame.name for frame in traceback.extract_tb(crash.__traceback__)]
            self.run.crashed_bunches += "receive_bunch" in frames and "_ordinals" not in frames
            self.restart()
        finally:
            sys.settrace(before)

    def restart(self) -> None:
        """A new receiver on the same slab; connections are lost, promises too."""
        self.run.crashes += 1
        self.shard = self.build()
        self.promised.clear()
        for parts in self.workers.values():
            for part in parts:
                if not part.done:
                    part.opened = False

    def die(self) -> None:
        """A worker is lost; another one gets the simulation, and the old one speaks once more."""
        open_ones = [s for s, parts in self.workers.items() if not all(p.done for p in parts)]
        if not open_ones:
            return
        self.run.deaths += 1
        simulation = self.random.choice(open_ones)
        old = self.random.choice(self.workers[simulation])
        if self.random.random() < 0.5:
            self.shard.supersede(simulation, old.lease)
        self.assign(simulation)
        if self.random.random() < 0.5:
            self.open(self.workers[simulation][0])
            self.workers[simulation][0].opened = True
            old.at = min(old.at, len(old.script) - 1)
            with pytest.raises(Refusal, match=r"superseded|not open here"):
                self.send(old)
            self.run.refusals += 1

    def finished(self) -> bool:
        done = all(part.done for parts in self.workers.values() for part in parts)
        return done and len(self.shard.delivered) == len(self.set.steps)

    # -- rules -----------------------------------------------------------------------------------

    def check(self) -> None:
        shard, reservoir = self.shard, self.shard.reservoir
        live = sum(stream.reserved for stream in shard.streams.values())
        assert shard.credit.reserved == live
        assert live <= reservoir.n_available, "credit without a slot"
        state = shard.slab.descriptor["state"]
        opened = [o.slot for stream in shard.streams.values() for o in stream.open.values()]
        assert sorted(opened) == np.flatnonzero(state == OPEN).tolist()
        assert sorted(reservoir.free) == np.flatnonzero(state == FREE).tolist()
        for slot in np.flatnonzero(state == COMMITTED):
            self.check_slot(int(slot))

    def check_slot(self, slot: int) -> None:
        slab = self.shard.slab
        row = slab.descriptor[slot]
        simulation, first = int(row["simulation"]), int(row["segment"]) * self.set.segment_steps
        n = int(row["n_steps"])
        assert n == min(self.set.segment_steps, self.set.steps[simulation] - first)
        for i in range(n):
            np.testing.assert_array_equal(slab.fields["u"][slot, i], content(simulation, first + i))
            assert slab.t[slot, i] == 0.5 * (first + i)
        assert slab.parameters[slot, 0] == simulation
        assert row["generation"] % 2 == 0
        if self.set.inputs:
            np.testing.assert_array_equal(slab.inputs["k"][row["row"]], coefficient(simulation))

    def own_segments(self, simulation: int) -> list[int]:
        n = -(-self.set.steps[simulation] // self.set.segment_steps)
        return [s for s in range(n) if s % self.set.stride == self.set.position]

    def check_end(self) -> None:
        """Each segment was admitted exactly once, with the right content; nothing is kept back."""
        shard = self.shard
        expected = [(s, k) for s in range(len(self.set.steps)) for k in self.own_segments(s)]
        lines = [JOURNAL.unpack(line) for line in self.journal()]
        assert sorted((line[1], line[3]) for line in lines) == expected
        assert [line[0] for line in lines] == list(range(1, len(lines) + 1))
        for _, simulation, _, segment, n_steps, checksum in lines:
            first = segment * self.set.segment_steps
            steps = np.stack([content(simulation, first + i) for i in range(n_steps)])
            assert checksum == zlib.crc32(steps.tobytes())
        for simulation, steps in enumerate(self.set.steps):
            assert shard.ledger.segments(simulation) == self.own_segments(simulation)
            assert shard.ledger.n_steps(simulation) == steps
            assert shard.delivered[simulation][1] == len(self.own_segments(simulation))
        assert shard.credit.reserved == 0
        assert not np.any(shard.slab.descriptor["state"] == OPEN)
        windows = [self.samples(s, k) for s, k in expected]
        assert shard.admitted_samples == sum(windows)
        assert shard.counters["refused"] == 0
        self.check_rows()

    def samples(self, simulation: int, segment: int) -> int:
        first = segment * self.set.segment_steps
        n = min(self.set.segment_steps, self.set.steps[simulation] - first)
        return max(0, n - self.span + 1)

    def check_rows(self) -> None:
        """Rows of input fields belong to slots in store and to streams, and to nothing else."""
        if not self.set.inputs:
            return
        descriptor = self.shard.slab.descriptor
        held = descriptor["row"][descriptor["state"] == COMMITTED].tolist()
        held += [s.row for s in self.shard.streams.values()]
        assert self.shard.slots.rows.n_free == self.shard.spec.n_rows - len(set(held))

    def journal(self) -> list[bytes]:
        text, n = (self.folder / "journal").read_bytes(), JOURNAL.size
        return [text[i : i + n] for i in range(0, len(text), n)]
