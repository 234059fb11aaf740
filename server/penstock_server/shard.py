"""The core of a receiver: slots, credit, admission and draws of one shard; no sockets, no clock.

Order of writes for a segment: descriptor OPEN, payload, part bits, COMMITTED, ledger bit; only then
may the receiver acknowledge. A restarted receiver rebuilds everything here by a scan of the slab.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock import wire
from penstock.wire import Header
from penstock_server.ledger import Ledger
from penstock_server.plans import PlanError, Target, covers
from penstock_server.reservoir import Ids, Reservoir
from penstock_server.slab import COMMITTED, FREE, OPEN, Slab
from penstock_server.streams import OpenSlot, Stream

Array = npt.NDArray[Any]
# ordinal, simulation, lease, segment, steps, checksum: a line of the admission journal
JOURNAL = struct.Struct("<QQIIII")


@dataclass(eq=False)
class Refusal(Exception):
    """Why a message is not taken; `kind` decides what the coordinator does about it."""

    kind: str  # nan, shape, undeclared, layout, credit, range, unreproducible, superseded, steps
    reason: str
    field: str = ""


@dataclass
class Reception:
    """Where the frames of a part go: buffers to receive into, then `Shard.receive_done`."""

    header: Header
    stream: Stream
    slot: int | None  # None: a repeat, compared with what is there and dropped
    step: int  # inside the segment
    buffers: list[Any] = field(default_factory=list)
    arrays: list[Array] = field(default_factory=list)


class Shard:
    """One slab with its ledger and reservoir; fed by a receiver, drawn from by a rank."""

    def __init__(
        self,
        slab: Slab,
        ledger: Ledger,
        reservoir: Reservoir,
        field_order: list[str],
        max_steps: int,
        checksums: bool = False,
        journal: Path | None = None,
    ) -> None:
        self.slab, self.ledger, self.reservoir = slab, ledger, reservoir
        self.spec = slab.spec
        self.counters: Counter[str] = Counter()
        self.delivered: dict[int, tuple[int, int]] = {}  # simulation -> (lease, segments)
        self.streams: dict[int, Stream] = {}
        self.held = False  # the trainer is behind: no more credit
        self.over = False  # production is over: nothing more will come
        self.names = self._names = field_order
        self._journal = journal.open("ab", buffering=0) if journal is not None else None
        self._max_steps = max_steps
        self._checksums = checksums
        self._slots: dict[tuple[int, int], int] = {}  # (simulation, segment) -> committed slot
        self._leases: dict[int, int] = {}
        self._reserved = 0
        self._rows_free = list(range(self.spec.n_rows - 1, -1, -1)) if self.spec.inputs else []
        self._row_uses: Counter[int] = Counter()
        self._turn = 0
        self._covered: set[tuple[int, ...]] = set()
        self._bytes = {n: _bytes(a.reshape(-1)) for n, a in slab.fields.items()}
        self.admitted_samples = 0
        self._rebuild()

    # -- streams ---------------------------------------------------------------------------------

    def open(self, header: Header, parameters: bytes, peer: bytes) -> Stream:
        """A part of a lease announces itself; a higher lease supersedes a lower one."""
        if len(parameters) != 8 * self.spec.n_parameters:
            raise Refusal("shape", f"OPEN carries {len(parameters)} bytes of parameters; "
                          f"{8 * self.spec.n_parameters} are expected.")  # fmt: skip
        if (header.flags > 0) != (self.reservoir.policy == "keep"):
            raise Refusal("role", f"A {wire.ROLES[min(header.flags, 2)]} simulation came to the "
                          "wrong kind of shard: held-out data never mixes with training data.")  # fmt: skip
        newest = self._leases.get(header.simulation, 0)
        if header.lease < newest:
            raise Refusal("superseded", f"Lease {header.lease} of simulation {header.simulation} "
                          f"was superseded by {newest}.")  # fmt: skip
        stream = self.streams.get(header.simulation)
        if stream is not None and stream.lease < header.lease:
            self.retire(header.simulation)
            stream = None
        if stream is None:
            stream = Stream(
                header.simulation, header.lease, header.n_parts, header.step,
                max(1, header.geometry), parameters, header.flags, n_steps=self.ledger.n_steps(header.simulation),
            )  # fmt: skip
            if not 1 <= stream.n_parts <= self.spec.max_parts:
                raise Refusal("layout", f"A simulation came in {stream.n_parts} parts; this "
                              f"campaign allows {self.spec.max_parts}.")  # fmt: skip
            if header.simulation in self.delivered:
                stream.ended = stream.all_parts  # a resend of what is complete already
            self._leases[header.simulation] = header.lease
            self.ledger.open(
                header.simulation, header.lease, stream.n_parts, stream.position, stream.stride
            )
            self._keep(stream)
        elif stream.n_parts != header.n_parts:
            raise Refusal("layout", f"Parts disagree on their number: {stream.n_parts} and "
                          f"{header.n_parts}.")  # fmt: skip
        stream.parameters, stream.role = parameters, header.flags
        stream.peers.add(peer)
        return stream

    def plan(self, stream: Stream, part: int, targets: dict[int, Target]) -> None:
        """The layout of one part; checked against the others as soon as all are known."""
        stream.targets[part] = targets
        if len(stream.targets) == stream.n_parts and not stream.covered:
            key = tuple(id(stream.targets[p]) for p in range(stream.n_parts))
            if key not in self._covered:
                for index, name in enumerate(self._names):
                    shape = self._shape(name)
                    parts = [stream.targets[p][index] for p in range(stream.n_parts)]
                    why = covers(shape, parts)
                    if why is not None:
                        raise Refusal(
                            "layout", f"The layout of {name!r} is not whole: {why}.", name
                        )
                self._covered.add(key)
            stream.covered = True

    def find(self, header: Header) -> Stream:
        """The stream of a message; raises Refusal when its lease is not the one in force."""
        stream = self.streams.get(header.simulation)
        if stream is None or stream.lease != header.lease:
            newest = self._leases.get(header.simulation, 0)
            raise Refusal("superseded", f"Lease {header.lease} of simulation {header.simulation} "
                          f"is not open here; the newest is {newest}.")  # fmt: skip
        if header.part >= stream.n_parts:
            raise Refusal("layout", f"Part {header.part} came of a simulation in {stream.n_parts}.")
        return stream

    def end(self, stream: Stream, part: int, n_steps: int) -> None:
        """A part says that the simulation has n_steps; the last segment may be short."""
        known = self.ledger.n_steps(stream.simulation)
        if n_steps > self._max_steps or (known is not None and known != n_steps):
            raise Refusal("steps", f"Simulation {stream.simulation} ended after {n_steps} steps; "
                          f"{self._max_steps if known is None else known} are expected.")  # fmt: skip
        if known is None:
            n_segments = stream.n_segments(n_steps, self.spec.segment_steps)
            self.ledger.end(stream.simulation, n_steps, n_segments)
        stream.n_steps = n_steps
        stream.ended |= 1 << part
        if stream.ended == stream.all_parts:
            self._unreserve(stream)
        for segment in list(stream.open):
            self._admit_if_complete(stream, segment)
        self._deliver_if_complete(stream)

    def retire(self, simulation: int, keep: bool = False) -> None:
        """Drops what is open of a simulation; with keep the stream stays, to answer its parts."""
        for key in [key for key in self._orphans if key[0] == simulation]:
            self._free(self._orphans.pop(key))
        stream = self.streams.get(simulation)
        if stream is None:
            return
        self._unreserve(stream)
        for opened in stream.open.values():
            self._free(opened.slot)
        stream.open.clear()
        if not keep:
            if stream.row is not None:
                self._unuse_row(stream.row)
            del self.streams[simulation]

    def refuse(self, stream: Stream, refusal: Refusal) -> None:
        """Quarantines a simulation: what is open is dropped, what comes is thrown away."""
        if stream.refused is None:
            stream.refused = refusal.reason
            self.counters["refused"] += 1
            self.retire(stream.simulation, keep=True)

    # -- parts -----------------------------------------------------------------------------------

    def receive(self, header: Header) -> Reception:
        """Buffers for the frames of a PART; a repeat gets buffers that are thrown away."""
        stream = self.find(header)
        if stream.refused is not None:
            raise Refusal("quarantined", stream.refused)
        targets = stream.targets.get(header.part)
        if targets is None:
            raise Refusal("layout", f"A part came before its layout: part {header.part} of "
                          f"simulation {header.simulation}.")  # fmt: skip
        if header.step >= self._max_steps:
            raise Refusal("steps", f"Step {header.step} came; the campaign allows "
                          f"{self._max_steps} a simulation (solver.max_steps).")  # fmt: skip
        self._check_table(header, targets)
        segment, step = divmod(header.step, self.spec.segment_steps)
        if segment % stream.stride != stream.position:
            raise Refusal("layout", f"Segment {segment} does not belong to this shard.")
        opened = stream.open.get(segment)
        stream.steps_seen = max(stream.steps_seen, header.step + 1)
        if self.ledger.admitted(stream.simulation, segment) or (
            opened is not None and opened.has(step, header.part)
        ):
            self.counters["duplicates"] += header.part == 0  # steps, not parts
            return self._aside(Reception(header, stream, None, step), targets)
        if opened is None:
            opened = self._open_slot(stream, segment)
        reception = Reception(header, stream, opened.slot, step)
        for entry in header.fields:
            name, target = self._names[entry.field], targets[entry.field]
            array = self.slab.fields[name]
            if target.first is not None:
                size = array.dtype.itemsize
                at = (opened.slot * self.spec.segment_steps + step) * self._step_values(name)
                at = (at + target.first) * size
                reception.buffers.append(self._bytes[name][at : at + entry.n_bytes])
                flat = array[opened.slot, step].reshape(-1)
                reception.arrays.append(flat[target.first : target.first + target.n])
            else:
                values = np.empty(target.n, dtype=array.dtype)
                reception.buffers.append(_bytes(values))
                reception.arrays.append(values)
        return reception

    def receive_done(self, reception: Reception) -> None:
        """The frames stand in the buffers: checks, scatters, marks the part, admits a segment."""
        header, stream = reception.header, reception.stream
        for entry, values in zip(header.fields, reception.arrays):
            if not _finite(values):
                name = self._names[entry.field]
                bad = int(np.count_nonzero(~np.isfinite(values)))
                raise Refusal("nan", f"Field {name!r} has {bad} values that are not finite at step "
                              f"{header.step}, part {header.part}.", name)  # fmt: skip
        if reception.slot is None:
            self._compare(reception)
            return
        targets = stream.targets[header.part]
        for entry, values in zip(header.fields, reception.arrays):
            target = targets[entry.field]
            if target.first is None:
                name = self._names[entry.field]
                target.scatter(values, self.slab.fields[name][reception.slot, reception.step])
        slot = reception.slot
        self.slab.t[slot, reception.step] = header.t
        segment = header.step // self.spec.segment_steps
        opened = stream.open[segment]
        opened.add(reception.step, header.part)
        word, bit = divmod(header.part, 64)
        self.slab.parts[slot, reception.step, word] |= np.uint64(1 << bit)
        if opened.bits[reception.step] == stream.all_parts:
            self.counters["received"] += 1
        self._admit_if_complete(stream, segment)

    def receive_inputs(self, header: Header, payloads: list[bytes]) -> None:
        """An INPUT message: the input fields of one part, stored once a simulation."""
        stream = self.find(header)
        targets = stream.targets.get(header.part)
        if targets is None:
            raise Refusal("layout", "Input fields came before their layout.")
        self._check_table(header, targets, inputs=True)
        if stream.row is None:
            raise Refusal("inputs", "There is no row for input fields; this is a defect.")
        for entry, payload in zip(header.fields, payloads):
            name, array = self._names[entry.field], self.slab.inputs[self._names[entry.field]]
            values = np.frombuffer(payload, dtype=array.dtype)
            if not _finite(values):
                raise Refusal("nan", f"Input field {name!r} has values that are not finite.", name)
            targets[entry.field].scatter(values, array[stream.row])
        stream.inputs_received |= 1 << header.part

    # -- credit ----------------------------------------------------------------------------------

    def grant(self) -> list[Stream]:
        """Extends credit round-robin as far as slots can be reserved; returns who got more."""
        if self.held:
            return []
        wanting = [s for s in self.streams.values() if s.live and self._may_have_more(s)]
        if not wanting:
            return []
        ahead = self._ahead(len([s for s in self.streams.values() if s.live]))
        gained: dict[int, Stream] = {}
        self._turn = (self._turn + 1) % len(wanting)
        queue = wanting[self._turn :] + wanting[: self._turn]
        while queue:
            rest = []
            for stream in queue:
                if self._grant_one(stream, ahead):
                    gained[stream.simulation] = stream
                    rest.append(stream)
            queue = rest
        return list(gained.values())

    @property
    def waiting(self) -> list[Stream]:
        """Streams that can send nothing more until they are granted."""
        return [s for s in self.streams.values() if s.live and not s.reserved and not s.open]

    @property
    def blocked(self) -> bool:
        """Whether there are producers, and every one of them waits for credit."""
        live = [s for s in self.streams.values() if s.live]
        return bool(live) and not self._available() and all(not s.reserved for s in live)

    @property
    def pressure(self) -> bool:
        """Whether some producer waits and a snapshot would free slots."""
        if self._available() or not self.reservoir.n_fresh:
            return False
        return any(s.live and not s.reserved for s in self.streams.values())

    # -- draws -----------------------------------------------------------------------------------

    def choose(self, n: int, unseen_only: bool) -> Ids:
        """The next batch of a rank: sample ids, promised until confirmed or cancelled."""
        urgent = not self.reservoir.n_available and bool(self.streams)
        return self.reservoir.choose(n, unseen_only, urgent)

    def snapshot(self, batch: int) -> None:
        """Draws up to `batch` are covered by a snapshot: their segments are trained on for good."""
        self.slab.books[0] = max(int(self.slab.books[0]), batch)
        for slot in self.reservoir.snapshot(batch):
            row = self.slab.descriptor[slot]
            self.ledger.draw(int(row["simulation"]), int(row["segment"]))

    def restore(self, batch: int) -> None:
        """The ranks went back to the snapshot at `batch`."""
        self.reservoir.restore(batch)
        self.snapshot(batch)

    def complete_simulations(self) -> int:
        """How many simulations have all their segments of this shard."""
        return len(self.delivered)

    # -- inner -----------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        descriptor = self.slab.descriptor
        used = np.flatnonzero(descriptor["state"] == COMMITTED)
        used = used[np.argsort(descriptor["ordinal"][used])]
        self._ordinal = int(descriptor["ordinal"].max(initial=0))
        taken = {int(slot) for slot in np.flatnonzero(descriptor["state"] != FREE)}
        self.reservoir.free = [s for s in reversed(range(self.spec.n_slots)) if s not in taken]
        for slot in sorted(used, key=lambda s: int(self.slab.drawn[s].max(initial=0))):
            row = descriptor[slot]
            simulation, segment = int(row["simulation"]), int(row["segment"])
            self.ledger.admit(simulation, segment)  # died between COMMITTED and the ledger bit
            self._slots[simulation, segment] = int(slot)
            self._use_row(int(row["row"]))
            self.reservoir.put(int(slot), self._windows(int(row["n_steps"])))
        self.reservoir.snapshot(int(self.slab.books[0]))
        self._orphans = {
            (int(descriptor["simulation"][s]), int(descriptor["segment"][s])): int(s)
            for s in np.flatnonzero(descriptor["state"] == OPEN)
        }
        for simulation, lease, n_parts, granted, position, stride in self.ledger.leases():
            stream = Stream(simulation, lease, n_parts, position, stride, b"",
                            n_steps=self.ledger.n_steps(simulation))  # fmt: skip
            self._leases[simulation] = lease
            self._keep(stream)
            for ordinal in range(granted):
                segment = stream.segment(ordinal)
                if segment not in stream.open and not self.ledger.admitted(simulation, segment):
                    stream.reserved_ordinals.add(ordinal)
            stream.granted, stream.reserved = granted, len(stream.reserved_ordinals)
            self._reserved += stream.reserved
        for simulation in self.ledger.simulations():
            n_steps = self.ledger.n_steps(simulation)
            self.admitted_samples += self._samples_admitted(simulation, n_steps)
            n_segments = self.ledger.n_segments(simulation)
            if n_segments is not None and self.ledger.n_admitted(simulation) >= n_segments:
                self.delivered[simulation] = (0, n_segments)

    def _keep(self, stream: Stream) -> None:
        """A stream begins; it takes over slots that were open before a restart, if its own."""
        self.streams[stream.simulation] = stream
        if self.spec.inputs:
            stream.row = self._take_row()
        for key, slot in list(self._orphans.items()):
            if key[0] != stream.simulation:
                continue
            del self._orphans[key]
            row = self.slab.descriptor[slot]
            if int(row["lease"]) != stream.lease or int(row["n_parts"]) != stream.n_parts:
                self._free(slot)
                continue
            words = self.slab.parts[slot]
            bits = [sum(int(w) << (64 * i) for i, w in enumerate(step)) for step in words]
            received = sum(bin(b).count("1") for b in bits)
            stream.open[key[1]] = OpenSlot(slot, bits, received)
            if stream.row is not None:
                self._unuse_row(int(row["row"]))
                row["row"] = stream.row
                self._use_row(stream.row)

    def _open_slot(self, stream: Stream, segment: int) -> OpenSlot:
        ordinal = segment // stream.stride
        if ordinal not in stream.reserved_ordinals:
            raise Refusal("credit", f"Segment {segment} came without credit; {stream.granted} "
                          "segments were granted.")  # fmt: skip
        if self.spec.inputs and stream.inputs_received != stream.all_parts:
            missing = ", ".join(self.spec.inputs)
            if not stream.inputs_received:
                raise Refusal("inputs", f"Steps came before the input fields {missing}; call "
                              "sim.inputs(...) first.")  # fmt: skip
        stream.reserved_ordinals.discard(ordinal)
        stream.reserved -= 1
        self._reserved -= 1
        slot, evicted = self.reservoir.acquire()
        row = self.slab.descriptor[slot]
        if evicted:
            self.counters["evicted"] += 1
            self._slots.pop((int(row["simulation"]), int(row["segment"])), None)
            self._unuse_row(int(row["row"]))
        row["generation"] += 1  # odd: readers keep away
        row["simulation"], row["segment"], row["lease"] = stream.simulation, segment, stream.lease
        row["role"] = stream.role
        row["n_parts"], row["n_steps"], row["row"] = stream.n_parts, 0, stream.row or 0
        self._use_row(stream.row or 0)
        self.slab.parts[slot] = 0
        self.slab.drawn[slot] = 0
        self.slab.t[slot] = np.nan
        row["state"] = OPEN
        self.slab.parameters[slot, : self.spec.n_parameters] = np.frombuffer(
            stream.parameters, dtype="<f8"
        )
        stream.open[segment] = OpenSlot(slot, [0] * self.spec.segment_steps)
        return stream.open[segment]

    def _admit_if_complete(self, stream: Stream, segment: int) -> None:
        opened = stream.open[segment]
        steps = self.spec.segment_steps
        if stream.n_steps is not None:
            steps = min(steps, stream.n_steps - segment * steps)
        if opened.received < steps * stream.n_parts or not stream.covered:
            return
        slot = opened.slot
        row = self.slab.descriptor[slot]
        self._ordinal += 1
        row["n_steps"], row["ordinal"] = steps, self._ordinal
        if self._checksums:
            row["checksum"] = self._checksum(slot, steps)
        row["generation"] += 1
        row["state"] = COMMITTED
        del stream.open[segment]
        self.ledger.admit(stream.simulation, segment)
        if self._journal is not None:
            checksum = int(row["checksum"])
            self._journal.write(JOURNAL.pack(self._ordinal, stream.simulation, stream.lease,
                                             segment, steps, checksum))  # fmt: skip
        self._slots[stream.simulation, segment] = slot
        self.counters["admitted"] += 1
        self.counters["admitted_steps"] += steps
        n_windows = self._windows(steps)
        self.admitted_samples += n_windows
        self.reservoir.put(slot, n_windows)
        if n_windows == 0:
            self.counters["too_short"] += 1
        self._deliver_if_complete(stream)

    def _deliver_if_complete(self, stream: Stream) -> None:
        n_segments = self.ledger.n_segments(stream.simulation)
        if n_segments is None or self.ledger.n_admitted(stream.simulation) < n_segments:
            return
        self.delivered.setdefault(stream.simulation, (stream.lease, n_segments))
        if stream.ended == stream.all_parts:
            self.retire(stream.simulation)

    def _compare(self, reception: Reception) -> None:
        """A repeated part is held against what is there, when it is still there."""
        header, stream = reception.header, reception.stream
        segment = header.step // self.spec.segment_steps
        opened = stream.open.get(segment)
        slot = opened.slot if opened is not None else self._slots.get((stream.simulation, segment))
        if slot is None:
            return
        for entry, values in zip(header.fields, reception.arrays):
            name = self._names[entry.field]
            there = self.slab.fields[name][slot, reception.step]
            old = stream.targets[header.part][entry.field].gather(there)
            scale = float(np.max(np.abs(old), initial=0.0))
            if not np.allclose(old, values, rtol=1e-4, atol=1e-5 * scale):
                worst = float(np.max(np.abs(old - values)))
                raise Refusal("unreproducible", f"Step {header.step} of simulation "
                              f"{header.simulation} came again with other values of {name!r} (by "
                              f"up to {worst:.3g}): the solver does not reproduce itself.", name)  # fmt: skip

    def _check_table(
        self, header: Header, targets: dict[int, Target], inputs: bool = False
    ) -> None:
        group = self.slab.inputs if inputs else self.slab.fields
        if len(header.fields) != len(group):
            raise Refusal("undeclared", f"A message carries {len(header.fields)} fields; the "
                          f"campaign declares {', '.join(group)}.")  # fmt: skip
        seen = set()
        for entry in header.fields:
            name = self._names[entry.field] if entry.field < len(self._names) else None
            if name not in group or entry.field in seen:
                raise Refusal("undeclared", f"Field number {entry.field} is not expected here; the "
                              f"campaign declares {', '.join(group)}.")  # fmt: skip
            seen.add(entry.field)
            array, target = group[name], targets[entry.field]
            expected = target.n * array.dtype.itemsize
            code = wire.dtype_code(array.dtype)
            if entry.dtype != code or entry.n_bytes != expected:
                raise Refusal("shape", f"Field {name!r} came with dtype code {entry.dtype} and "
                              f"{entry.n_bytes} bytes; {code} ({array.dtype.name}) and {expected} "
                              "are expected.", name)  # fmt: skip

    def _aside(self, reception: Reception, targets: dict[int, Target]) -> Reception:
        for entry in reception.header.fields:
            dtype = self.slab.fields[self._names[entry.field]].dtype
            values = np.empty(targets[entry.field].n, dtype=dtype)
            reception.buffers.append(_bytes(values))
            reception.arrays.append(values)
        return reception

    def _available(self) -> int:
        return max(0, self.reservoir.n_available - self._reserved)

    def _ahead(self, n_live: int) -> int:
        return max(1, min(64, self.spec.n_slots // (2 * max(1, n_live))))

    def _may_have_more(self, stream: Stream) -> bool:
        return not self.spec.inputs or stream.row is not None

    def _grant_one(self, stream: Stream, ahead: int) -> bool:
        segment = stream.segment(stream.granted)
        if segment * self.spec.segment_steps >= self._max_steps:
            return False
        if stream.n_steps is not None and segment * self.spec.segment_steps >= stream.n_steps:
            return False
        if self.ledger.admitted(stream.simulation, segment) or segment in stream.open:
            stream.granted += 1  # a repeat needs no slot
            self.ledger.grant(stream.simulation, stream.granted)
            return True
        if stream.reserved >= ahead or not self._available():
            return False
        stream.reserved_ordinals.add(stream.granted)
        stream.granted += 1
        self.ledger.grant(stream.simulation, stream.granted)
        stream.reserved += 1
        self._reserved += 1
        return True

    def _unreserve(self, stream: Stream) -> None:
        self._reserved -= stream.reserved
        stream.reserved = 0
        self.ledger.close(stream.simulation)
        stream.reserved_ordinals.clear()

    def _free(self, slot: int) -> None:
        row = self.slab.descriptor[slot]
        row["generation"] += int(row["generation"]) % 2
        row["state"] = FREE
        self._unuse_row(int(row["row"]))
        self.reservoir.release(slot)

    def _take_row(self) -> int | None:
        if not self._rows_free:
            return None
        row = self._rows_free.pop()
        self._row_uses[row] += 1
        return row

    def _use_row(self, row: int) -> None:
        if self.spec.inputs:
            if not self._row_uses[row] and row in self._rows_free:
                self._rows_free.remove(row)
            self._row_uses[row] += 1

    def _unuse_row(self, row: int) -> None:
        if self.spec.inputs:
            self._row_uses[row] -= 1
            if self._row_uses[row] <= 0:
                self._row_uses[row] = 0
                self._rows_free.append(row)

    def _windows(self, n_steps: int) -> int:
        return max(0, n_steps - self.spec.window + 1)

    def _samples_admitted(self, simulation: int, n_steps: int | None) -> int:
        length, total = self.spec.segment_steps, 0
        for segment in self.ledger.segments(simulation):
            steps = length if n_steps is None else min(length, n_steps - segment * length)
            total += self._windows(steps)
        return total

    def _shape(self, name: str) -> tuple[int, ...]:
        both = {**self.spec.fields, **self.spec.inputs}
        return both[name][0]

    def _step_values(self, name: str) -> int:
        return int(np.prod(self.spec.fields[name][0], dtype=np.int64))

    def _checksum(self, slot: int, steps: int) -> int:
        crc = 0
        for name in self.spec.fields:
            crc = zlib.crc32(self.slab.fields[name][slot, :steps].tobytes(), crc)
        return crc


def _bytes(values: Array) -> memoryview:
    """The memory of a contiguous array, writable."""
    return values.view("u1").data


def _finite(values: Array) -> bool:
    """A sum is finite when all values are; only when it is not, look at each (it may overflow)."""
    if values.dtype.kind != "f" or np.isfinite(values.sum()):
        return True
    return bool(np.isfinite(values).all())


def read_targets(names: Iterable[str], shapes: dict[str, tuple[int, ...]], header: Header,
                 payloads: list[bytes]) -> dict[int, Target]:  # fmt: skip
    """Decodes a PLAN message; raises Refusal for one that does not fit the campaign."""
    from penstock_server.plans import read_target

    order = list(names)
    if [e.field for e in header.fields] != list(range(len(order))) or len(payloads) != len(order):
        raise Refusal("layout", f"A plan covers every field in order: {', '.join(order)}.")
    try:
        return {i: read_target(n, shapes[n], payloads[i]) for i, n in enumerate(order)}
    except PlanError as error:
        raise Refusal("layout", str(error)) from error
