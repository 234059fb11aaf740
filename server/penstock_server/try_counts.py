"""What `penstock try` counts of the data path: fields, layouts, steps and their times; pure.

The counting server hands each message to `Counts.take`; findings and report read what was counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock import wire
from penstock.wire import Header, Kind
from penstock_server.plans import PlanError, Target, read_target

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
    ended_s: float | None = None
    ended_parts: set[int] = field(default_factory=set)
    outcome: str = "running"
    reason: str = ""
    n_steps: int | None = None
    t: list[float] = field(default_factory=list)  # of complete steps
    done_s: list[float] = field(default_factory=list)  # when each step was complete
    spread_s: list[float] = field(default_factory=list)  # from its first part to its last
    n_bytes: int = 0  # input fields included
    input_bytes: int = 0
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
        self.inputs: set[int] = set()
        self.problems: list[str] = []

    def name(self, index: int) -> str:
        return self.names.get(index, f"field {index}")

    def seen(self, index: int) -> FieldSeen:
        return self.fields.setdefault(index, FieldSeen())

    def shape(self, index: int) -> tuple[int, ...]:
        """The global shape of a field as its first layout says."""
        return next(iter(self.shapes.get(index, {}).values()), ())

    @property
    def whole(self) -> list[SimulationSeen]:
        """The simulations that came whole."""
        return [
            sim
            for sim in self.simulations.values()
            if sim.ended_s is not None and sim.outcome in ("ended", "running")
        ]

    def declare(self, fields: Mapping[str, Mapping[str, Any]]) -> None:
        """The request `fields`: names, indices and roles, before the plan that has them."""
        for name, spec in fields.items():
            self.names[int(spec["index"])] = name
            if spec.get("role") == "input":
                self.inputs.add(int(spec["index"]))

    def assign(self, simulation: int, parameters: dict[str, float], now: float) -> None:
        self.simulations[simulation] = SimulationSeen(simulation, parameters, now)

    def take(self, header: Header, payloads: Sequence[bytes], now: float) -> None:
        """One message of the data path, in order and once."""
        if header.kind == Kind.PLAN:
            self._plan(header, payloads)
            return
        if header.kind == Kind.BUNCH:
            try:
                for part, values in wire.parts_of(header, payloads):
                    self.take(part, [bytes(each) for each in values], now)
            except wire.WireError as error:
                self._complain(str(error))
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
            n_bytes = sum(map(len, payloads))
            simulation.n_bytes += n_bytes
            if header.kind == Kind.PART:
                simulation.take(header.step, header.part, header.t, now)
            else:
                simulation.input_bytes += n_bytes
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
