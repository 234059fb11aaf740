"""Where the fields of a part go in the slab, and what is looked at when they stand there.

A Part is looked up once for each part of a stream: the field table, the plan and the campaign are
checked then, and every step after it only computes addresses. Used by the shard; no sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.wire import FieldEntry, Header
from penstock_server.door import Refusal, close, finite
from penstock_server.plans import Plan, Target
from penstock_server.slab import Slab

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Place:
    """One field of a part: where its values go in the slab's array of that field."""

    name: str
    target: Target
    flat: Array  # the field's array of all slots and steps, 1-D
    n_values: int  # of the whole field in one step

    def values(self, row: int) -> Array:
        """Memory for the part's values (n,): in place if they are contiguous, else aside."""
        target = self.target
        if target.first is None:
            return np.empty(target.n, dtype=self.flat.dtype)
        at = row * self.n_values + target.first
        return self.flat[at : at + target.n]

    def step(self, row: int, shape: tuple[int, ...]) -> Array:
        """The whole field of one step."""
        at = row * self.n_values
        return self.flat[at : at + self.n_values].reshape(shape)


@dataclass(frozen=True, slots=True)
class PartPlaces:
    """What a part brings with every step; valid for messages that name this table and plan."""

    table: tuple[FieldEntry, ...]
    plan: int
    places: tuple[Place, ...]

    def are_of(self, header: Header) -> bool:
        """Whether the message brings the same. Tables are compared by identity: wire keeps them."""
        return self.table is header.fields and self.plan == header.plan


class Fields:
    """The field arrays of a slab, as parts are written to them and compared with them.

    A row is `slot * segment_steps + step`.
    """

    def __init__(self, slab: Slab, names: list[str]) -> None:
        self._names = names
        self._shapes = {name: shape for name, (shape, _) in slab.spec.fields.items()}
        self._flat = {name: array.reshape(-1) for name, array in slab.fields.items()}
        rows = slab.spec.n_slots * slab.spec.segment_steps
        self._n_values = {name: array.size // rows for name, array in self._flat.items()}

    def places(self, header: Header, plan: Plan) -> PartPlaces:
        """For a message whose table the door has let in."""
        found = []
        for entry in header.fields:
            name = self._names[entry.field]
            target = plan.targets[entry.field]
            found.append(Place(name, target, self._flat[name], self._n_values[name]))
        return PartPlaces(header.fields, header.plan, tuple(found))

    def scatter(self, places: PartPlaces, row: int, arrays: list[Array]) -> None:
        """Writes to the slab what was received aside."""
        for place, values in zip(places.places, arrays):
            if place.target.first is None:
                place.target.scatter(values, place.step(row, self._shapes[place.name]))

    def compare(self, header: Header, places: PartPlaces, row: int, arrays: list[Array]) -> None:
        """Raises Refusal when a repeated part differs from what stands at its place."""
        for place, values in zip(places.places, arrays):
            old = place.target.gather(place.step(row, self._shapes[place.name]))
            if not close(old, values):
                worst = float(np.max(np.abs(old - values)))
                raise Refusal(
                    "unreproducible",
                    f"Step {header.step} of simulation {header.simulation} came again with other "
                    f"values of {place.name!r} (by up to {worst:.3g}): the solver does not "
                    "reproduce itself.",
                    place.name,
                )


def aside(places: PartPlaces) -> list[Array]:
    """Memory for a part that is not to be stored."""
    return [np.empty(place.target.n, dtype=place.flat.dtype) for place in places.places]


def check_finite(header: Header, places: PartPlaces, arrays: list[Array]) -> None:
    """Raises Refusal for NaN and infinite values."""
    for place, values in zip(places.places, arrays):
        if not finite(values):
            bad = int(np.count_nonzero(~np.isfinite(values)))
            raise Refusal(
                "nan",
                f"Field {place.name!r} has {bad} values that are not finite at step "
                f"{header.step}, part {header.part}.",
                place.name,
            )


class Inputs:
    """The input fields of a slab: one row for each simulation that has something in it."""

    def __init__(self, slab: Slab, names: list[str]) -> None:
        self._arrays, self._names = slab.inputs, names

    def read(self, header: Header, payloads: list[bytes]) -> dict[str, Array]:
        """The values (n,) of one part by field; raises Refusal for such as are not finite."""
        found = {}
        for entry, payload in zip(header.fields, payloads):
            name = self._names[entry.field]
            found[name] = values = np.frombuffer(payload, dtype=self._arrays[name].dtype)
            if not finite(values):
                raise Refusal("nan", f"Input field {name!r} has values that are not finite.", name)
        return found

    def store(
        self,
        header: Header,
        found: Mapping[str, Array],
        targets: Mapping[int, Target],
        row: int,
        settled: bool,
    ) -> None:
        """Writes what was read; what is settled is compared instead. Raises Refusal."""
        for entry, (name, values) in zip(header.fields, found.items()):
            array, target = self._arrays[name], targets[entry.field]
            if not settled:
                target.scatter(values, array[row])
            elif not close(target.gather(array[row]), values):
                raise Refusal(
                    "unreproducible",
                    f"Input field {name!r} of simulation {header.simulation} came again with "
                    "other values.",
                    name,
                )
