"""What all MPI ranks own, brought to rank 0, which is the only part that the shards know.

For penstock.connect(comm, gather="root"): a solver on 1,000 ranks with 100 bytes each a step has
one connection a shard then, and not 1,000. Who owns what is told to rank 0 once a layout
(`exchange`); a step is one MPI gather of bytes (`gather`). When ranks gather, gathered.py decides.
Owned by the link, one on every rank.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from penstock.errors import LayoutError
from penstock.layout import BOX, INDEX, FieldSpec, Share
from penstock.ranks import Ranks
from penstock.shipment import Shipment

STEP, INPUT = "step", "input"
MOST_BYTES = (1 << 31) - 1  # of a step, on all ranks: MPI counts them in an int


class Host(Protocol):
    """What it needs of the link that it belongs to."""

    specs: Mapping[str, FieldSpec]

    def shares(self) -> Mapping[str, Share]: ...
    def fields_of(self, when: str) -> list[FieldSpec]: ...
    def shipment(self, fields: Mapping[str, Any], when: str) -> Shipment: ...
    def forget_plan(self) -> None: ...


class Gathering:
    """`shares` and `shipments` of rank 0: of what it ships for all, whole fields if nobody erred.

    `stale`: the layout of this rank is another one than rank 0 knows.
    """

    def __init__(self, ranks: Ranks, host: Host) -> None:
        self.shares: dict[str, Share] = {}
        self.shipments: dict[str, Shipment] = {}
        self.stale = True
        self._ranks, self._host = ranks, host
        self._mine: dict[str, tuple[np.ndarray, list[np.ndarray]]] = {}
        self._all: dict[str, _Landing] = {}

    def forget(self) -> None:
        """The layout of this rank has changed."""
        self.stale = True

    def exchange(self) -> None:
        """All ranks tell rank 0 what they own; collective.

        Raises LayoutError, on all ranks, when they don't lay out the same fields in the same shapes
        or a step is larger than 2 GiB. Gaps and overlaps are for the shard to refuse.
        """
        specs, shares = list(self._host.specs.values()), self._host.shares()
        told, why = self._to_root(_told(specs, shares)), ""
        if self._ranks.rank == 0:
            try:
                self._put_together(specs, told)
            except LayoutError as error:
                why = str(error)
        why = self._ranks.tell(why, 0)
        if why:
            raise LayoutError(why)
        for when in (STEP, INPUT):
            mine = [(s.dtype, (1, *shares[s.name].sent_shape)) for s in self._host.fields_of(when)]
            memory = np.empty(_n_bytes(mine), "u1")
            self._mine[when] = memory, _side_by_side(memory, mine)
        self.stale = False

    def gather(self, when: str, fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """This rank's values of a step, or of the inputs; on rank 0 those of all; collective.

        when: "step" or "input". Raises LayoutError for values that are not this rank's part.
        """
        shipment = self._host.shipment(fields, when)
        memory, places = self._mine[when]
        shipment.pack(shipment.check(fields), places, 0)
        landing = self._all.get(when)
        if landing is None:
            self._ranks.gather(memory, None, ())
            return {}
        self._ranks.gather(memory, landing.memory, landing.counts)
        return landing.fields()

    def _to_root(self, numbers: np.ndarray) -> list[np.ndarray]:
        """Arrays of any length, an array of int64 for each rank; none but on rank 0."""
        size, root = self._ranks.size, self._ranks.rank == 0
        lengths = np.zeros(size, "i8") if root else None
        self._ranks.gather(np.array([len(numbers)], "i8"), lengths, [1] * size)
        counts = [] if lengths is None else lengths.tolist()
        into = np.empty(sum(counts), "<i8") if root else None
        self._ranks.gather(numbers, into, counts)
        return [] if into is None else np.split(into, np.cumsum(counts)[:-1])

    def _put_together(self, specs: list[FieldSpec], told: list[np.ndarray]) -> None:
        plans = _heard(specs, told)
        shares = {spec.name: together(spec, plans[spec.name]) for spec in specs}
        landings, shipments = {}, {}
        for when in (STEP, INPUT):
            mine = self._host.fields_of(when)
            sizes = [[_n_values(plans[s.name][rank]) for s in mine] for rank in range(len(told))]
            landings[when] = _Landing(mine, sizes, shares)
            shipments[when] = Shipment(when, mine, shares)
        self.shares, self.shipments, self._all = shares, shipments, landings
        self._host.forget_plan()


def together(spec: FieldSpec, plans: Sequence[np.ndarray]) -> Share:
    """The share of a rank that has what several have, one after the other, flat.

    plans: `Share.plan` of each. It is a box where that is the whole field in C order, as with ranks
    that own slabs, so that a shard receives it in place; else flat indices.
    """
    shape = spec.sent_shape
    field = np.arange(math.prod(shape), dtype="<i8").reshape(shape)
    owned = np.concatenate([_indices(plan, field) for plan in plans])
    if np.array_equal(owned, field.reshape(-1)):
        plan = np.array([BOX, len(shape), *shape, *[0] * len(shape), *shape], dtype="<i8")
        return Share(shape, shape, None, plan)
    plan = np.concatenate([[INDEX, len(shape), *shape], owned]).astype("<i8")
    return Share(owned.shape, owned.shape, None, plan)


class _Landing:
    """Rank 0's memory for what all ranks bring to a step: bytes, rank after rank."""

    def __init__(
        self, specs: list[FieldSpec], sizes: list[list[int]], shares: Mapping[str, Share]
    ) -> None:
        """sizes: values of each field, for each rank."""
        of_ranks = [[(spec.dtype, (n,)) for spec, n in zip(specs, row)] for row in sizes]
        self.counts = [_n_bytes(row) for row in of_ranks]
        if sum(self.counts) > MOST_BYTES:
            raise LayoutError(
                f"All ranks together send {sum(self.counts)} bytes at once; {MOST_BYTES} can be "
                'gathered. Leave out gather="root": it is for small fields.'
            )
        self.memory = np.empty(sum(self.counts), "u1")
        pieces = _side_by_side(self.memory, [each for row in of_ranks for each in row])
        self._pieces = {s.name: pieces[i :: len(specs)] for i, s in enumerate(specs)}
        if len(specs) == 1:
            self._pieces = {specs[0].name: [self.memory.view(specs[0].dtype)]}
        self._shapes = {spec.name: shares[spec.name].owned_shape for spec in specs}

    def fields(self) -> dict[str, np.ndarray]:
        """Each field as the shares of rank 0 say it; a copy."""
        return {
            name: np.concatenate(pieces).reshape(self._shapes[name])
            for name, pieces in self._pieces.items()
        }


def _told(specs: Iterable[FieldSpec], shares: Mapping[str, Share]) -> np.ndarray:
    """What a rank says of its layout: for each field a number for its name, then its plan."""
    words = [np.zeros(0, "<i8")]
    for spec in specs:
        plan = shares[spec.name].plan
        words += [np.array([zlib.crc32(spec.name.encode()), len(plan)], "<i8"), plan]
    return np.concatenate(words)


def _heard(specs: list[FieldSpec], told: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """The plans of all ranks by field; raises LayoutError when ranks disagree."""
    plans: dict[str, list[np.ndarray]] = {spec.name: [] for spec in specs}
    for rank, numbers in enumerate(told):
        at = 0
        for spec in specs:
            name, length = numbers[at : at + 2] if at < len(numbers) else (-1, 0)
            if name != zlib.crc32(spec.name.encode()):
                raise LayoutError(
                    f"MPI rank {rank} has not the fields of rank 0, which are {', '.join(plans)}. "
                    "Lay out and send the same ones in the same order on every rank."
                )
            plan = numbers[at + 2 : at + 2 + length]
            shape = tuple(plan[2 : 2 + plan[1]].tolist())
            if shape != spec.sent_shape:
                raise LayoutError(
                    f"Field {spec.name!r} has the shape {shape} on MPI rank {rank} and "
                    f"{spec.sent_shape} on rank 0. Correct the global_shape of its layout."
                )
            plans[spec.name].append(plan)
            at += 2 + length
        if at != len(numbers):
            raise LayoutError(
                f"MPI rank {rank} has more fields than rank 0, which has {', '.join(plans)}. Lay "
                "out and send the same ones in the same order on every rank."
            )
    return plans


def _indices(plan: np.ndarray, field: np.ndarray) -> np.ndarray:
    """What a plan says, as flat indices; field: these, in its shape."""
    rest = plan[2 + field.ndim :]
    if plan[0] == INDEX:
        return rest
    ends = zip(rest[: field.ndim], rest[: field.ndim] + rest[field.ndim :])
    return field[tuple(slice(start, stop) for start, stop in ends)].reshape(-1)


def _n_values(plan: np.ndarray) -> int:
    rest = plan[2 + plan[1] :]
    return len(rest) if plan[0] == INDEX else math.prod(rest[plan[1] :].tolist())


def _n_bytes(arrays: Iterable[tuple[np.dtype, tuple[int, ...]]]) -> int:
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in arrays)


def _side_by_side(
    memory: np.ndarray, arrays: Iterable[tuple[np.dtype, tuple[int, ...]]]
) -> list[np.ndarray]:
    """Arrays of these dtypes and shapes, one after the other in memory (bytes,)."""
    found, at = [], 0
    for dtype, shape in arrays:
        end = at + dtype.itemsize * math.prod(shape)
        found.append(memory[at:end].view(dtype).reshape(shape))
        at = end
    return found
