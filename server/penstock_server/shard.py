"""The core of a receiver: slots, credit, admission and draws of one shard; no sockets, no clock.

Order of writes for a segment: descriptor OPEN, payload, part bits, COMMITTED, ledger bit; only then
may the receiver acknowledge. A restarted receiver rebuilds everything here by a scan of the slab.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.wire import Header
from penstock_server import parts
from penstock_server.bunches import Block, Bunches
from penstock_server.credit import Credit
from penstock_server.door import Door, Refusal
from penstock_server.ledger import Ledger
from penstock_server.parts import PartPlaces
from penstock_server.physics import NO_DEMANDS, Physics
from penstock_server.plans import Plan, check_number, covers, digest_of
from penstock_server.reservoir import Ids, Reservoir
from penstock_server.slab import SNAPSHOT, Slab
from penstock_server.slots import Slots
from penstock_server.streams import OpenSlot, Stream

Array = npt.NDArray[Any]

MOST_GEOMETRIES = 10_000  # that are known to be whole


@dataclass(slots=True)
class Reception:
    """Where the frames of a part go: arrays to receive into, then `Shard.receive_done`."""

    header: Header
    stream: Stream
    places: PartPlaces
    opened: OpenSlot | None  # None: a repeat, compared with what is there and dropped
    row: int  # slot * segment_steps + step inside the segment
    arrays: list[Array]
    finite: bool = False  # known to be; else `receive_done` looks


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
        physics: Physics = NO_DEMANDS,
        most_simulations: float = math.inf,
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
        self._covered: set[bytes] = set()  # digests of plans that are whole together
        self._fields = parts.Fields(slab, field_order)
        self._inputs = parts.Inputs(slab, field_order)
        self._t = slab.t.reshape(-1)
        self._physics = physics
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
        single = self.spec.segment_steps == self.spec.windows == 1 and not physics.demands
        self._bunches = Bunches(slab, self.slots, self.credit, max_steps) if single else None
        held_out = reservoir.policy == "keep"
        self._door = Door(self.spec, field_order, held_out, most_simulations)
        self._rebuild()

    # -- streams ---------------------------------------------------------------------------------

    def open(self, header: Header, parameters: bytes, peer: bytes, plan: Plan) -> Stream:
        """A part of a lease announces itself and its layout; a higher lease supersedes a lower one.

        An OPEN that is refused changes nothing of a lease whose parts have all come before.
        """
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
        values = np.frombuffer(parameters, dtype="<f8")
        if stream is None:
            stream = Stream(
                header.simulation, header.lease, header.n_parts, header.step, stride, values,
                header.flags, n_steps=self.ledger.n_steps(header.simulation),
            )  # fmt: skip
            self._leases[header.simulation] = header.lease
            self.ledger.open(
                header.simulation, header.lease, stream.n_parts, stream.position, stream.stride
            )
            self._begin(stream)
        theirs = (header.n_parts, header.step, stride)
        if (stream.n_parts, stream.position, stream.stride) != theirs:
            raise Refusal(
                "layout",
                f"Parts disagree: (parts, position, shards) are {theirs} here "
                f"and {(stream.n_parts, stream.position, stream.stride)} there.",
            )
        if stream.refused is not None:
            raise Refusal("quarantined", stream.refused)
        self._lay_out(stream, header.part, plan)
        stream.peers.add(peer)
        stream.plan_numbers.setdefault(header.part, set()).add(header.plan)
        stream.values, stream.role = values, header.flags
        return stream

    def _lay_out(self, stream: Stream, part: int, plan: Plan) -> None:
        """The layout of one part; checked against the others as soon as all are known.

        It is that of the lease: what has come in another one already stands in its slots.
        """
        known = stream.plans.get(part)
        if known is not None and known.digest != plan.digest:
            raise Refusal("layout", f"Part {part} of simulation {stream.simulation} came with "
                          "another layout than before.")  # fmt: skip
        stream.plans[part] = plan
        stream.places.pop(part, None)
        if len(stream.plans) == stream.n_parts:
            plans = [stream.plans[p] for p in range(stream.n_parts)]
            number = check_number(plans)
            try:
                self._check_whole(plans)
                if stream.covered not in (0, number):
                    raise Refusal("layout", f"The parts of simulation {stream.simulation} came "
                                  "with other layouts than before the restart.")  # fmt: skip
            except Refusal as refusal:
                self.refuse(stream, refusal)  # of all parts: they do not fit together
                raise
            stream.covered = number
            self.ledger.cover(stream.simulation, number)

    def _check_whole(self, plans: list[Plan]) -> None:
        """Raises Refusal unless the parts cover each field exactly once; looks once a geometry."""
        key = digest_of(plans)
        if key in self._covered:
            return
        if len(self._covered) >= MOST_GEOMETRIES:
            self._covered.clear()
        for index, name in enumerate(self._names):
            why = covers(self._shape(name), [plan.targets[index] for plan in plans])
            if why is not None:
                raise Refusal("layout", f"The layout of {name!r} is not whole: {why}.", name)
        self._covered.add(key)

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
        for segment, opened in list(stream.open.items()):
            self._admit_if_complete(stream, segment, opened)
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
        """Arrays for the frames of a PART; a repeat gets some that are thrown away."""
        stream = self.find(header)
        if stream.refused is not None:
            raise Refusal("quarantined", stream.refused)
        if header.step >= self._max_steps:
            raise Refusal("steps", f"Step {header.step} came; the campaign allows "
                          f"{self._max_steps} a simulation (solver.max_steps).")  # fmt: skip
        if stream.n_steps is not None and header.step >= stream.n_steps:
            raise Refusal("steps", f"Step {header.step} came of a simulation that has ended after "
                          f"{stream.n_steps}.")  # fmt: skip
        places = stream.places.get(header.part)
        if places is None or not places.are_of(header):
            places = self._places(stream, header)
        segment, step = divmod(header.step, self.spec.segment_steps)
        if segment % stream.stride != stream.position:
            raise Refusal("layout", f"Segment {segment} does not belong to this shard.")
        stream.steps_seen = max(stream.steps_seen, header.step + 1)
        opened = stream.open.get(segment)
        if opened is None and self.credit.use(stream, segment // stream.stride):
            opened = stream.open[segment] = self.slots.take(stream, segment)
        elif opened is None or opened.has(step, header.part):
            if opened is None and not self.ledger.admitted(stream.simulation, segment):
                raise Refusal("credit", f"Segment {segment} came without credit; {stream.granted} "
                              "segments were granted.")  # fmt: skip
            self.counters["duplicates"] += header.part == 0  # steps, not parts
            return Reception(header, stream, places, None, step, parts.aside(places))
        row = opened.slot * self.spec.segment_steps + step
        arrays = [place.values(row) for place in places.places]
        return Reception(header, stream, places, opened, row, arrays)

    def receive_done(self, reception: Reception) -> None:
        """The frames stand in the arrays: checks, scatters, marks the part, admits a segment."""
        header, stream, opened = reception.header, reception.stream, reception.opened
        if not reception.finite:
            parts.check_finite(header, reception.places, reception.arrays)
        self._physics.check_part(header, reception.places, reception.arrays)
        if opened is None:
            self._compare(reception)
            return
        self._fields.scatter(reception.places, reception.row, reception.arrays)
        self._t[reception.row] = header.t
        segment, step = divmod(header.step, self.spec.segment_steps)
        if opened.bits[step] | 1 << header.part == stream.all_parts:
            if self._physics.sees_steps:  # before it is marked: a restart would not ask again
                fields = {name: a[opened.slot, step] for name, a in self.slab.fields.items()}
                self._physics.check_step(header.step, fields, header.t, stream.values)
            self.counters["received"] += 1
        opened.add(step, header.part)
        self.slots.mark(reception.row, header.part)
        self._admit_if_complete(stream, segment, opened)

    def receive_bunch(self, header: Header, steps: Array, blocks: Sequence[Block]) -> bool:
        """All steps of a BUNCH at once; False: none was admitted, and they take `receive`, each."""
        stream = self.streams.get(header.simulation)
        if self._bunches is None or stream is None or stream.lease != header.lease:
            return False
        places = stream.places.get(header.part)
        try:
            if places is None or not places.are_of(header):
                self._places(stream, header)
        except Refusal:  # it is told with the step that it is about
            return False
        admitted = self._bunches.admit(stream, header, steps, blocks)
        if admitted is None:
            return False
        slots, ordinals = admitted
        n = len(slots)
        self.counters.update(received=n, admitted=n, admitted_steps=n)
        self.admitted_samples += n
        self.reservoir.put_all(slots, ordinals)
        self._deliver_if_complete(stream)
        return True

    def receive_inputs(self, header: Header, payloads: list[bytes]) -> None:
        """An INPUT message: the input fields of one part, stored once a simulation."""
        stream = self.find(header)
        if stream.refused is not None:
            raise Refusal("quarantined", stream.refused)
        plan = self._plan_of(stream, header)
        self._door.check_table(header, plan.targets, inputs=True)
        if stream.row is None:
            raise Refusal("inputs", "There is no row for input fields; this is a defect.")
        values = self._inputs.read(header, payloads)
        self._physics.check_inputs(header.part, values)
        settled = self.slots.rows.settled(stream.row)
        self._inputs.store(header, values, plan.targets, stream.row, settled)
        stream.inputs_received |= 1 << header.part

    def _places(self, stream: Stream, header: Header) -> PartPlaces:
        """Looks at the first step of a part, and at one with another field table."""
        plan = self._plan_of(stream, header)
        if self.spec.inputs and not stream.has_inputs(header.part):
            raise Refusal(
                "inputs",
                f"Steps of part {header.part} came before the input fields "
                f"{', '.join(self.spec.inputs)}; call sim.inputs(...) first.",
            )
        self._door.check_table(header, plan.targets)
        places = stream.places[header.part] = self._fields.places(header, plan)
        return places

    def _plan_of(self, stream: Stream, header: Header) -> Plan:
        """The layout of a message's values: the one that its part's OPEN named."""
        plan, numbers = stream.plans.get(header.part), stream.plan_numbers.get(header.part)
        if plan is None or numbers is None:
            raise Refusal("layout", f"Values came before their layout: part {header.part} of "
                          f"simulation {header.simulation}.")  # fmt: skip
        if header.plan not in numbers:
            raise Refusal("layout", f"Values came in plan {header.plan}; part {header.part} opened "
                          f"simulation {header.simulation} with plan {min(numbers)}.")  # fmt: skip
        return plan

    def _compare(self, reception: Reception) -> None:
        """A repeated part is held against what is there, when it is still there."""
        header, stream = reception.header, reception.stream
        segment, step = divmod(header.step, self.spec.segment_steps)
        opened = stream.open.get(segment)
        slot = opened.slot if opened is not None else self.slots.find(stream.simulation, segment)
        if slot is not None:
            row = slot * self.spec.segment_steps + step
            self._fields.compare(header, reception.places, row, reception.arrays)

    # -- draws -----------------------------------------------------------------------------------

    def choose(self, n: int, unseen_only: bool) -> Ids:
        """The next batch of a rank: sample ids, promised until confirmed or cancelled."""
        urgent = not self.reservoir.n_available and any(s.live for s in self.streams.values())
        return self.reservoir.choose(n, unseen_only, urgent)

    def snapshot(self, batch: int) -> None:
        """Draws up to `batch` are covered by a snapshot: their segments are trained on for good."""
        self.slab.books[SNAPSHOT] = max(int(self.slab.books[SNAPSHOT]), batch)
        for slot in self.reservoir.snapshot(batch):
            row = self.slab.descriptor[slot]
            self.ledger.draw(int(row["simulation"]), int(row["segment"]))

    def export(self, path: Path, batch: int) -> None:
        """The ledger as it will be when a snapshot of all draws up to `batch` stands."""
        rows = self.slab.descriptor[self.reservoir.drawn_by(batch)]
        trained = [(int(row["simulation"]), int(row["segment"])) for row in rows]
        self.ledger.copy(path, batch, trained)

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
        self.snapshot(int(self.slab.books[SNAPSHOT]))
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
            stream = Stream(simulation, lease, n_parts, position, stride, np.empty(0),
                            granted=granted, n_steps=self.ledger.n_steps(simulation),
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
            for segment, half in list(stream.open.items()):  # died before it was admitted
                self._admit_if_complete(stream, segment, half)
        for slots in opened.values():
            for slot in slots:
                self.slots.free(slot)

    def _begin(self, stream: Stream) -> None:
        self.streams[stream.simulation] = stream
        if self.spec.inputs:
            stream.row = self.slots.rows.take(stream.simulation)

    def _admit_if_complete(self, stream: Stream, segment: int, opened: OpenSlot) -> None:
        steps = self.spec.segment_steps
        if stream.n_steps is not None:
            steps = min(steps, stream.n_steps - segment * steps)
        if opened.received < steps * stream.n_parts or not stream.covered:
            return
        ordinal = self.slots.commit(stream, segment, steps)
        self.counters["admitted"] += 1
        self.counters["admitted_steps"] += steps
        n_windows = self.slots.windows(steps)
        self.admitted_samples += n_windows
        self.reservoir.put(opened.slot, n_windows, ordinal)
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

    def _samples_admitted(self, simulation: int, n_steps: int | None) -> int:
        length, total = self.spec.segment_steps, 0
        for segment in self.ledger.segments(simulation):
            steps = length if n_steps is None else min(length, n_steps - segment * length)
            total += self.slots.windows(steps)
        return total

    def _shape(self, name: str) -> tuple[int, ...]:
        both = {**self.spec.fields, **self.spec.inputs}
        return both[name][0]
