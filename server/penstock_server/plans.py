"""Where the parts of a step go inside a slot, read from PLAN messages; used by the shard.

A plan belongs to one connection. For each field it says which part of the sent field comes from
there: a box (received in place when it is contiguous) or flat indices (received aside, scattered).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BOX, INDEX = 0, 1
Array = npt.NDArray[Any]


class PlanError(ValueError):
    """A plan that does not fit the campaign's field."""


@dataclass(frozen=True)
class Target:
    """One part of one field: `where` selects it in the field of one step, n values.

    first is the flat offset when the part is contiguous in memory, else None.
    """

    where: Any
    extent: tuple[int, ...]
    n: int
    first: int | None

    def mark(self, covered: Array) -> bool:
        """Adds this part to a boolean map of the field; False where it overlaps."""
        if self.n == 0:
            return True
        flat = isinstance(self.where, np.ndarray)
        view = covered.reshape(-1) if flat else covered
        if view[self.where].any():
            return False
        view[self.where] = True
        return True

    def scatter(self, values: Array, field: Array) -> None:
        """Writes values (n,) to their places in the field of one step."""
        if isinstance(self.where, np.ndarray):
            field.reshape(-1)[self.where] = values
        else:
            field[self.where] = values.reshape(self.extent)

    def gather(self, field: Array) -> Array:
        """The inverse of scatter, flat; used to compare a repeated part with what is there."""
        if isinstance(self.where, np.ndarray):
            return np.asarray(field.reshape(-1)[self.where])
        return np.asarray(field[self.where]).reshape(-1)


@dataclass(frozen=True)
class Plan:
    """The layout of one part: a target for each field by its index."""

    targets: Mapping[int, Target]
    digest: bytes  # of the payloads


def read_target(name: str, shape: tuple[int, ...], payload: bytes) -> Target:
    """Decodes one field of a PLAN message; shape is the campaign's sent shape.

    Raises PlanError in a sentence that names the field, for anything that does not fit.
    """
    if len(payload) % 8 or len(payload) < 16:
        raise PlanError(f"The plan of field {name!r} is truncated: {len(payload)} bytes.")
    numbers = np.frombuffer(payload, dtype="<i8")
    kind, ndim = int(numbers[0]), int(numbers[1])
    if ndim != len(shape) or len(numbers) < 2 + ndim:
        raise PlanError(f"The plan of field {name!r} has {ndim} axes; {len(shape)} are declared.")
    sent = tuple(int(n) for n in numbers[2 : 2 + ndim])
    if sent != shape:
        raise PlanError(
            f"The plan of field {name!r} has the shape {sent}; the campaign expects {shape}."
        )
    rest = numbers[2 + ndim :]
    if kind == BOX:
        return _box(name, shape, rest)
    if kind == INDEX:
        return _indices(name, shape, rest)
    raise PlanError(f"The plan of field {name!r} is of kind {kind}; 0 (box) and 1 (indices) exist.")


def covers(shape: tuple[int, ...], targets: list[Target]) -> str | None:
    """Why the parts do not cover the field exactly once, or None when they do."""
    covered = np.zeros(shape, dtype=bool)
    for part, target in enumerate(targets):
        if not target.mark(covered):
            return f"part {part} overlaps another part"
    missing = covered.size - int(np.count_nonzero(covered))
    return f"{missing} of {covered.size} values belong to no part" if missing else None


def check_number(plans: Sequence[Plan]) -> int:
    """1 to 65535, by which the layouts of all parts are known again after a restart."""
    return 1 + int.from_bytes(digest_of(plans), "little") % 65535


def digest_of(plans: Sequence[Plan]) -> bytes:
    """Of the plans of all parts, in their order."""
    joined = b"".join(plan.digest for plan in plans)
    return hashlib.blake2b(joined, digest_size=16).digest()


def _box(name: str, shape: tuple[int, ...], rest: Array) -> Target:
    if len(rest) != 2 * len(shape):
        raise PlanError(f"The plan of field {name!r} has {len(rest)} bounds, not a pair an axis.")
    start = [int(n) for n in rest[: len(shape)]]
    extent = [int(n) for n in rest[len(shape) :]]
    if any(a < 0 or n < 0 or a + n > size for a, n, size in zip(start, extent, shape)):
        raise PlanError(f"The plan of field {name!r} has a box at {start} of {extent} in {shape}.")
    where = tuple(slice(a, a + n) for a, n in zip(start, extent))
    n_values = int(np.prod(extent, dtype=np.int64))
    return Target(where, tuple(extent), n_values, _first(shape, start, extent))


def _first(shape: tuple[int, ...], start: list[int], extent: list[int]) -> int | None:
    """The flat offset of a box that is contiguous in C order, else None."""
    axis = 0
    while axis < len(shape) and extent[axis] == 1:
        axis += 1
    if any(n != size for n, size in zip(extent[axis + 1 :], shape[axis + 1 :])):
        return None
    return int(np.ravel_multi_index(start, shape)) if shape and all(extent) else 0


def _indices(name: str, shape: tuple[int, ...], rest: Array) -> Target:
    size = int(np.prod(shape, dtype=np.int64))
    if len(rest) and not (0 <= int(rest.min()) and int(rest.max()) < size):
        raise PlanError(f"The plan of field {name!r} has indices outside 0..{size - 1}.")
    if len(np.unique(rest)) != len(rest):
        raise PlanError(f"The plan of field {name!r} names an index twice.")
    return Target(rest.copy(), (len(rest),), len(rest), None)
