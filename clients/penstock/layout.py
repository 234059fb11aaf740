"""What an MPI rank owns of each field, and what of it the campaign wants; called by the link.

The global field is what the solver has; the sent field is what is left of it after the campaign's
crop, stride and choice of components. A Share maps one to the other for one rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np

from penstock.errors import LayoutError

BOX, INDEX = 0, 1

Owned = Union[Sequence[slice], np.ndarray]


@dataclass(frozen=True)
class FieldSpec:
    """One field as the campaign declares it; `sent_shape` is what a slot of the reservoir holds."""

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype
    role: str = "state"
    every: int = 1
    crop: tuple[tuple[int, int], ...] = ()
    stride: tuple[int, ...] = ()
    keep_components: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, name: str, index: int, spec: Mapping[str, Any]) -> FieldSpec:
        """Reads the coordinator's welcome; keys that this client does not know are ignored."""
        return cls(
            name=name,
            index=index,
            shape=tuple(int(n) for n in spec["shape"]),
            dtype=np.dtype(spec.get("dtype", "float32")),
            role=spec.get("role", "state"),
            every=int(spec.get("every", 1)),
            crop=tuple((int(a), int(b)) for a, b in spec.get("crop") or ()),
            stride=tuple(int(s) for s in spec.get("stride") or ()),
            keep_components=tuple(int(c) for c in spec.get("keep_components") or ()),
        )

    def kept(self) -> list[np.ndarray]:
        """For each axis the global indices that are sent, ascending."""
        axes = []
        for axis, size in enumerate(self.shape):
            start, stop = self.crop[axis] if axis < len(self.crop) else (0, size)
            step = self.stride[axis] if axis < len(self.stride) else 1
            axes.append(np.arange(size)[start:stop:step])
        if self.keep_components and axes:
            axes[-1] = np.asarray(self.keep_components)
        return axes

    @property
    def reduced(self) -> bool:
        """Whether less than the whole field is sent."""
        return bool(self.crop or self.keep_components or any(s != 1 for s in self.stride))

    @property
    def sent_shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.kept())


@dataclass(frozen=True)
class Share:
    """One rank's share of one field: what to take from its array, and where it goes.

    `take` selects from the owned array (None: all of it); `plan` is the payload of the PLAN
    message: [kind, ndim, *sent shape] and then *start, *extent (BOX) or flat indices (INDEX).
    """

    owned_shape: tuple[int, ...]
    sent_shape: tuple[int, ...]
    take: Any
    plan: np.ndarray = field(repr=False)

    @property
    def n_values(self) -> int:
        """How many values of the field go out from here."""
        return math.prod(self.sent_shape)

    def pick(self, values: np.ndarray) -> np.ndarray:
        """What goes out of an array of the owned shape; a view if it lies evenly."""
        return values if self.take is None else values[self.take]


def whole(spec: FieldSpec) -> Share:
    """The share of a rank that has the whole field."""
    return share(spec, tuple(slice(0, n) for n in spec.shape))


def share(spec: FieldSpec, owned: Owned) -> Share:
    """The share of a rank that owns a box (a slice an axis) or flat indices of the global field.

    Raises LayoutError when what is owned does not fit the declared shape.
    """
    if isinstance(owned, np.ndarray):
        return _index_share(spec, owned)
    return _box_share(spec, tuple(owned))


def _box_share(spec: FieldSpec, owned: tuple[slice, ...]) -> Share:
    if len(owned) != len(spec.shape):
        raise LayoutError(
            f"The layout of {spec.name!r} names {len(owned)} axes; the campaign declares the "
            f"shape {spec.shape}. Give one slice for each axis."
        )
    starts, extents, picks, shape = [], [], [], []
    for axis, (piece, kept) in enumerate(zip(owned, spec.kept())):
        start, stop, step = piece.indices(spec.shape[axis])
        if step != 1 or stop < start:
            raise LayoutError(
                f"The layout of {spec.name!r} has {piece} on axis {axis}; slices of step 1 are "
                "expected. Give flat indices where a rank owns something else."
            )
        shape.append(stop - start)
        inside = np.flatnonzero((kept >= start) & (kept < stop))
        local = kept[inside] - start
        if len(inside) and not np.array_equal(inside, np.arange(inside[0], inside[-1] + 1)):
            raise LayoutError(
                f"keep_components of {spec.name!r} are not contiguous in what this rank owns; "
                "list them in ascending order, or let each rank own all components."
            )
        starts.append(int(inside[0]) if len(inside) else 0)
        extents.append(len(inside))
        picks.append(_as_slice(local))
    sent = tuple(extents)
    everything = all(
        isinstance(pick, slice) and pick == slice(0, size, 1) for pick, size in zip(picks, shape)
    )
    take = None if everything else _selector(picks)
    plan = np.array([BOX, len(starts), *spec.sent_shape, *starts, *extents], dtype="<i8")
    return Share(tuple(shape), sent, take, plan)


def _index_share(spec: FieldSpec, owned: np.ndarray) -> Share:
    flat = np.asarray(owned, dtype=np.int64).ravel()
    size = int(np.prod(spec.shape, dtype=np.int64))
    if len(flat) and not (0 <= flat.min() and flat.max() < size):
        wrong = flat.max() if flat.min() >= 0 else flat.min()
        raise LayoutError(
            f"The layout of {spec.name!r} owns index {wrong}; the declared shape "
            f"{spec.shape} has {size} values, so indices go from 0 to {size - 1}."
        )
    take: Any = None
    if spec.reduced:
        positions = [np.full(n, -1, dtype=np.int64) for n in spec.shape]
        for position, kept in zip(positions, spec.kept()):
            position[kept] = np.arange(len(kept))
        axes = [p[i] for p, i in zip(positions, np.unravel_index(flat, spec.shape))]
        inside = np.flatnonzero(np.all([axis >= 0 for axis in axes], axis=0))
        sent_flat = np.ravel_multi_index([axis[inside] for axis in axes], spec.sent_shape)
        take = inside
    else:
        sent_flat = flat
    sent_shape = spec.sent_shape
    plan = np.concatenate([[INDEX, len(sent_shape), *sent_shape], sent_flat]).astype("<i8")
    return Share((len(flat),), (len(sent_flat),), take, plan)


def _as_slice(local: np.ndarray) -> Any:
    """Evenly spaced local indices as a slice (a view), anything else as an index array."""
    if len(local) == 0:
        return slice(0, 0)
    step = int(local[1] - local[0]) if len(local) > 1 else 1
    if step > 0 and np.array_equal(local, np.arange(local[0], local[-1] + 1, step)):
        return slice(int(local[0]), int(local[-1]) + 1, step)
    return local


def _selector(picks: list[Any]) -> Any:
    if all(isinstance(pick, slice) for pick in picks):
        return tuple(picks)
    arrays = [np.arange(p.start, p.stop, p.step) if isinstance(p, slice) else p for p in picks]
    return np.ix_(*arrays)
