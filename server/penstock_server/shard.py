"""The core of a receiver: slots, credit, admission and draws of one shard; no sockets, no clock.

Order of writes for a segment: descriptor OPEN, payload, part bits, COMMITTED, ledger bit; only then
may the receiver acknowledge. A restarted receiver rebuilds everything here by a scan of the slab.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.wire import Header
from penstock_server.credit import Credit
from penstock_server.door import Door, Refusal, close, finite
from penstock_server.ledger import Ledger
from penstock_server.plans import Plan, Target, covers
from penstock_server.reservoir import Ids, Reservoir
from penstock_server.slab import Slab
from penstock_server.slots import Slots
from penstock_server.streams import Stream

Array = npt.NDArray[Any]


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
        self.over = False  # production is over: nothing more will come
        self.names = self._names = field_order
        self._max_steps = max_steps
        self._leases: dict[int, int] = {}
        self._dismissed: list[tuple[Stream, str]] = []
        self.slots = Slots(slab, ledger, reservoir, self.counters, checksums, journal)
        self._covered: set[tuple[bytes, ...]] = set()  # digests of plans that are whole together
        self._values = {name: math.prod(shape) for name, (shape, _) in self.spec.fields.items()}
        self._bytes = {n: _bytes(a.reshape(-1)) for n, a in slab.fields.items()}
        self.admitted_samples = 0
        self.credit = Credit(
            self.streams,
            self.delivered,
            ledger,
            reservoir,
            self.spec.segment_steps,
            max_steps,
            needs_row=bool(self.spec.inputs),
        )
        self._door = Door(self.spec, field_order, held_out=reservoir.policy == "keep")
        self._rebuild()

    # -- streams ---------------------------------------------------------------------------------

    def open(self, header: Header, parameters: bytes, peer: bytes) -> Stream:
        """A part of a lease announces itself; a higher lease supersedes a lower one."""
        self._door.check_open(header, parameters)
        newest = self._leases.get(header.simulation, 0)
        if header.lease < newest:
            raise Refusal("superseded", f"Lease {header.lease} of simulation {header.simulation} "
                          f"was superseded by {newest}.")  # fmt: skip
        stream = self.streams.get(header.simulation)
        if stream is not None and stream.lease < header.lease:
            self._dismiss(stream, f"Lease {stream.lease} was superseded by {header.lease}.")
            stream = None
        stride = max(1, header.geometry)
        if stream is None:
            stream = Stream(
                header.simulation, header.lease, header.n_parts, header.step, stride, parameters,
                header.flags, n_steps=self.ledger.n_steps(header.simulation),
            )  # fmt: skip
            self._leases[header.simulation] = header.lease
            self.ledger.open(
                header.simulation, header.lease, stream.n_parts, stream.position, stream.stride
            )
            self._begin(stream)
        stream.peers.add(peer)
        theirs = (header.n_parts, header.step, stride)
        if (stream.n_parts, stream.position, stream.stride) != theirs:
            raise Refusal(
                "layout",
                f"Parts disagree: (parts, position, shards) are {theirs} here "
                f"and {(stream.n_parts, stream.position, stream.stride)} there.",
            )
        if stream.refused is not None:
            raise Refusal("quarantined", stream.refused)
        stream.parameters, stream.role = parameters, header.flags
        return stream

    def plan(self, stream: Stream, part: int, plan: Plan) -> None:
        """The layout of one part; checked against the others as soon as all are known."""
        stream.plans[part] = plan
        if len(stream.plans) == stream.n_parts and not stream.covered:
            plans = [stream.plans[p] for p in range(stream.n_parts)]
            key = tuple(p.digest for p in plans)
            if key not in self._covered:
                for index, name in enumerate(self._names):
                    shape = self._shape(name)
                    parts = [p.targets[index] for p in plans]
                    why = covers(shape, parts)
                    if why is not None:
                        raise Refusal(
                            "layout", f"The layout of {name!r} is not whole: {why}.", name
                        )
                self._covered.add(key)
            stream.covered = True
            self.ledger.cover(stream.simulation)

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
        if stream.refused is not None:
            raise Refusal("quarantined", stream.refused)
        known = self.ledger.n_steps(stream.simulation)
        if n_steps > self._max_steps or (known is not None and known != n_steps):
            raise Refusal(
                "steps",
                f"Simulation {stream.simulation} ended after {n_steps} steps; "
                f"{self._max_steps if known is None else known} are expected.",
            )
        if known is None:
            n_segments = stream.n_segments(n_steps, self.spec.segment_steps)
            if (
                n_steps < stream.steps_seen
                or self.ledger.n_admitted(stream.simulation) > n_segments
            ):
                raise Refusal("steps", f"Simulation {stream.simulation} ended after {n_steps} "
                              f"steps, and more of it came: {stream.steps_seen}.")  # fmt: skip
            self.ledger.end(stream.simulation, n_steps, n_segments)
        stream.n_steps = n_steps
        stream.ended |= 1 << part
        for segment in list(stream.open):
            self._admit_if_complete(stream, segment)
        if stream.ended == stream.all_parts:
            self.credit.release(stream)
        self._deliver_if_complete(stream)
        if stream.ended == stream.all_parts and stream.simulation not in self.delivered:
            raise Refusal("steps", f"Simulation {stream.simulation} ended after {n_steps} steps, "
                          "and some of them never came.")  # fmt: skip

    def retire(self, simulation: int, keep: bool = False) -> None:
        """Drops what is open of a simulation; with keep the stream stays, to answer its parts."""
        stream = self.streams.get(simulation)
        if stream is None:
            return
        self.credit.release(stream)
        for opened in stream.open.values():
            self.slots.free(opened.slot)
        stream.open.clear()
        if stream.row is not None:
            self.slots.rows.unuse(stream.row)
            stream.row = None
        if not keep:
            del self.streams[simulation]

    def supersede(self, simulation: int, lease: int) -> None:
        """The lease and those before it are dead; a newer one has not come yet."""
        self._leases[simulation] = max(lease + 1, self._leases.get(simulation, 0))
        stream = self.streams.get(simulation)
        if stream is not None and stream.lease <= lease:
            self._dismiss(stream, f"Lease {stream.lease} of simulation {simulation} is over.")

    def withdraw(self, simulation: int) -> None:
        """The campaign wants no more of the simulation."""
        stream = self.streams.get(simulation)
        if stream is not None:
            self._leases[simulation] = stream.lease + 1
            self._dismiss(stream, f"Simulation {simulation} is not wanted any more.")

    def take_dismissed(self) -> list[tuple[Stream, str]]:
        """Streams that were dropped without their parts' doing, with the reason; once each."""
        dismissed, self._dismissed = self._dismissed, []
        return dismissed

    def _dismiss(self, stream: Stream, why: str) -> None:
        self._dismissed.append((stream, why))
        self.retire(stream.simulation)

    def refuse(self, stream: Stream, refusal: Refusal) -> None:
        """Quarantines a simulation: what is open is dropped, what comes is thrown away."""
        if stream.refused is None:
            stream.refused = refusal.reason
            self.counters["refused"] += 1
            if stream.simulation not in self.delivered:
                self.ledger.reopen(stream.simulation)
            self.retire(stream.simulation, keep=True)

    # -- parts -----------------------------------------------------------------------------------

    def receive(self, header: Header) -> Reception:
        """Buffers for the frames of a PART; a repeat gets buffers that are thrown away."""
        stream = self.find(header)
        if stream.refused is not None:
            raise Refusal("quarantined", stream.refused)
        plan = stream.plans.get(header.part)
        if plan is None:
            raise Refusal("layout", f"A part came before its layout: part {header.part} of "
                          f"simulation {header.simulation}.")  # fmt: skip
        targets = plan.targets
        if header.step >= self._max_steps:
            raise Refusal("steps", f"Step {header.step} came; the campaign allows "
                          f"{self._max_steps} a simulation (solver.max_steps).")  # fmt: skip
        if stream.n_steps is not None and header.step >= stream.n_steps:
            raise Refusal("steps", f"Step {header.step} came of a simulation that has ended after "
                          f"{stream.n_steps}.")  # fmt: skip
        if self.spec.inputs and not stream.has_inputs(header.part):
            raise Refusal(
                "inputs",
                f"Steps of part {header.part} came before the input fields "
                f"{', '.join(self.spec.inputs)}; call sim.inputs(...) first.",
            )
        self._door.check_table(header, targets)
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
            if not self.credit.use(stream, segment // stream.stride):
                raise Refusal("credit", f"Segment {segment} came without credit; {stream.granted} "
                              "segments were granted.")  # fmt: skip
            opened = stream.open[segment] = self.slots.take(stream, segment)
        reception = Reception(header, stream, opened.slot, step)
        for entry in header.fields:
            name, target = self._names[entry.field], targets[entry.field]
            array = self.slab.fields[name]
            if target.first is not None:
                size = array.dtype.itemsize
                at = (opened.slot * self.spec.segment_steps + step) * self._values[name]
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
            if not finite(values):
                name = self._names[entry.field]
                bad = int(np.count_nonzero(~np.isfinite(values)))
                raise Refusal("nan", f"Field {name!r} has {bad} values that are not finite at step "
                              f"{header.step}, part {header.part}.", name)  # fmt: skip
        if reception.slot is None:
            self._compare(reception)
            return
        targets = stream.plans[header.part].targets
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
        if stream.refused is not None:
            raise Refusal("quarantined", stream.refused)
        plan = stream.plans.get(header.part)
        if plan is None:
            raise Refusal("layout", "Input fields came before their layout.")
        self._door.check_table(header, plan.targets, inputs=True)
        if stream.row is None:
            raise Refusal("inputs", "There is no row for input fields; this is a defect.")
        for entry, payload in zip(header.fields, payloads):
            name, array = self._names[entry.field], self.slab.inputs[self._names[entry.field]]
            values = np.frombuffer(payload, dtype=array.dtype)
            if not finite(values):
                raise Refusal("nan", f"Input field {name!r} has values that are not finite.", name)
            target = plan.targets[entry.field]
            if not self.slots.rows.settled(stream.row):
                target.scatter(values, array[stream.row])
            elif not close(target.gather(array[stream.row]), values):
                raise Refusal(
                    "unreproducible",
                    f"Input field {name!r} of simulation "
                    f"{stream.simulation} came again with other values.",
                    name,
                )
        stream.inputs_received |= 1 << header.part

    # -- draws -----------------------------------------------------------------------------------

    def choose(self, n: int, unseen_only: bool) -> Ids:
        """The next batch of a rank: sample ids, promised until confirmed or cancelled."""
        urgent = not self.reservoir.n_available and any(s.live for s in self.streams.values())
        return self.reservoir.choose(n, unseen_only, urgent)

    def snapshot(self, batch: int) -> None:
        """Draws up to `batch` are covered by a snapshot: their segments are trained on for good."""
        self.slab.books[0] = max(int(self.slab.books[0]), batch)
        for slot in self.reservoir.snapshot(batch):
            row = self.slab.descriptor[slot]
            self.ledger.draw(int(row["simulation"]), int(row["segment"]))

    def look_at_keeper(self) -> None:
        """What the keeper has stored by now may be evicted."""
        self.reservoir.keep(int(self.slab.kept[0]))

    def restore(self, batch: int) -> None:
        """The ranks went back to the snapshot at `batch`."""
        self.reservoir.restore(batch)
        self.snapshot(batch)

    def complete_simulations(self) -> int:
        """How many simulations have all their segments of this shard."""
        return len(self.delivered)

    # -- inner -----------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        self.look_at_keeper()
        self.slots.scan()
        self.snapshot(int(self.slab.books[0]))
        for simulation in self.ledger.simulations():
            n_steps = self.ledger.n_steps(simulation)
            self.admitted_samples += self._samples_admitted(simulation, n_steps)
            n_segments = self.ledger.n_segments(simulation)
            if n_segments is not None and self.ledger.n_admitted(simulation) >= n_segments:
                self.delivered[simulation] = (0, n_segments)
        self._resume_streams()

    def _resume_streams(self) -> None:
        """The leases in force, with their open slots and what was granted to them."""
        opened = self.slots.opened()
        for simulation, lease, n_parts, granted, position, stride in self.ledger.leases():
            self._leases[simulation] = lease
            if simulation in self.delivered:
                self.ledger.close(simulation)
                continue
            stream = Stream(simulation, lease, n_parts, position, stride, b"", granted=granted,
                            n_steps=self.ledger.n_steps(simulation),
                            covered=self.ledger.covered(simulation))  # fmt: skip
            self._begin(stream)
            for slot in opened.pop(simulation, []):
                self.slots.take_over(stream, slot)
            kept = set()
            for ordinal in range(granted):
                segment = stream.segment(ordinal)
                if self.ledger.admitted(simulation, segment) or segment in stream.open:
                    stream.steps_seen = max(stream.steps_seen, segment * self.spec.segment_steps)
                elif not self.credit.beyond(stream, segment):
                    kept.add(ordinal)
            self.credit.renew(stream, kept)
            for segment in list(stream.open):  # died before it was admitted
                self._admit_if_complete(stream, segment)
        for slots in opened.values():
            for slot in slots:
                self.slots.free(slot)

    def _begin(self, stream: Stream) -> None:
        self.streams[stream.simulation] = stream
        if self.spec.inputs:
            stream.row = self.slots.rows.take(stream.simulation)

    def _admit_if_complete(self, stream: Stream, segment: int) -> None:
        opened = stream.open[segment]
        steps = self.spec.segment_steps
        if stream.n_steps is not None:
            steps = min(steps, stream.n_steps - segment * steps)
        if opened.received < steps * stream.n_parts or not stream.covered:
            return
        slot = self.slots.commit(stream, segment, steps)
        self.counters["admitted"] += 1
        self.counters["admitted_steps"] += steps
        n_windows = self.slots.windows(steps)
        self.admitted_samples += n_windows
        self.reservoir.put(slot, n_windows, int(self.slab.descriptor["ordinal"][slot]))
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
        slot = opened.slot if opened is not None else self.slots.find(stream.simulation, segment)
        if slot is None:
            return
        for entry, values in zip(header.fields, reception.arrays):
            name = self._names[entry.field]
            there = self.slab.fields[name][slot, reception.step]
            old = stream.plans[header.part].targets[entry.field].gather(there)
            if not close(old, values):
                worst = float(np.max(np.abs(old - values)))
                raise Refusal(
                    "unreproducible",
                    f"Step {header.step} of simulation "
                    f"{header.simulation} came again with other values of {name!r} (by "
                    f"up to {worst:.3g}): the solver does not reproduce itself.",
                    name,
                )

    def _aside(self, reception: Reception, targets: Mapping[int, Target]) -> Reception:
        for entry in reception.header.fields:
            dtype = self.slab.fields[self._names[entry.field]].dtype
            values = np.empty(targets[entry.field].n, dtype=dtype)
            reception.buffers.append(_bytes(values))
            reception.arrays.append(values)
        return reception

    def _samples_admitted(self, simulation: int, n_steps: int | None) -> int:
        length, total = self.spec.segment_steps, 0
        for segment in self.ledger.segments(simulation):
            steps = length if n_steps is None else min(length, n_steps - segment * length)
            total += self.slots.windows(steps)
        return total

    def _shape(self, name: str) -> tuple[int, ...]:
        both = {**self.spec.fields, **self.spec.inputs}
        return both[name][0]


def _bytes(values: Array) -> memoryview:
    """The memory of a contiguous array, writable."""
    return values.view("u1").data
