"""The fields of a step, or the input fields, as one MPI rank ships them; made once by the link.

`pack` and `payloads` make the one copy between the solver's memory and the wire, and `payloads`
none of what the solver wrote into the stream's memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock import wire
from penstock.buffers import Buffers
from penstock.errors import LayoutError
from penstock.layout import FieldSpec, Share
from penstock.spans import Spans
from penstock.wire import FieldEntry


class Shipment:
    """What the campaign wants with every step ("step") or once a simulation ("input").

    `table` is the field table of the messages; fields stand in the campaign's order.
    """

    def __init__(self, when: str, specs: Sequence[FieldSpec], shares: Mapping[str, Share]) -> None:
        self._when = when
        self._fields = {spec.name: (spec, shares[spec.name]) for spec in specs}
        self.table = tuple(
            FieldEntry(
                spec.index, wire.dtype_code(spec.dtype), share.n_values * spec.dtype.itemsize
            )
            for spec, share in self._fields.values()
        )
        self._shares = [share for _, share in self._fields.values()]
        self.usual = tuple(
            (spec.name, share.owned_shape, share.take) for spec, share in self._fields.values()
        )  # what an array has to be for `check` to return it as it is, and what `pack` takes of it
        self.n_bytes = sum(entry.n_bytes for entry in self.table)

    def check(self, given: Mapping[str, Any]) -> list[np.ndarray]:
        """What was given, in order and in the owned shapes; raises LayoutError if it does not fit.

        Nothing is copied: these are the solver's own arrays.
        """
        if given.keys() != self._fields.keys():
            self._complain(given)
        return [
            _owned_values(spec, share.owned_shape, given[name])
            for name, (spec, share) in self._fields.items()
        ]

    def blocks(self, buffers: Buffers, steps: int) -> list[np.ndarray]:
        """Memory for this rank's share of each field in so many steps side by side."""
        return [
            buffers.take((steps, *share.sent_shape), spec.dtype)
            for spec, share in self._fields.values()
        ]

    def pack(self, values: Sequence[np.ndarray], out: list[np.ndarray], at: int) -> None:
        """Writes the share of what `check` let through to this place of each of the blocks."""
        for share, given, array in zip(self._shares, values, out):
            array[at] = share.pick(given)  # converts, as the cast of any float to another

    def lies_in(self, spans: Spans, values: Sequence[np.ndarray]) -> bool:
        """Whether `payloads` would copy none of these values."""
        return all(
            share.take is None and spans.holds(spec.name, given)
            for (spec, share), given in zip(self._fields.values(), values)
        )

    def payloads(self, values: Sequence[np.ndarray], spans: Spans) -> list[np.ndarray]:
        """This rank's share of what `check` let through: where the solver wrote it, or a copy."""
        payloads: list[np.ndarray] = []
        try:
            for (spec, share), given in zip(self._fields.values(), values):
                array = spans.claim(spec.name, given) if share.take is None else None
                payloads.append(
                    spans.take(share.sent_shape, spec.dtype) if array is None else array
                )
                if array is None:
                    payloads[-1][...] = share.pick(given)  # converts as well
        except BaseException:
            for payload in payloads:
                spans.give_back(payload)
            raise
        return payloads

    def expects(self, field: str, shape: tuple[int, ...]) -> tuple[FieldSpec, Share]:
        """A field of the step; raises LayoutError if this rank's part has not the shape."""
        if field not in self._fields:
            self._complain({field: None})
        spec, share = self._fields[field]
        if _long_axes(shape) != _long_axes(share.owned_shape):
            raise _wrong_shape(spec, f"was asked for with the shape {shape}", share.owned_shape)
        return spec, share

    def most(self, n_bytes: int) -> int:
        """How many steps fit into so many bytes, each with its row of a bunch."""
        return n_bytes // (self.n_bytes + wire.STEP.itemsize)

    def _complain(self, given: Mapping[str, Any]) -> None:
        for name in given:
            if name not in self._fields:
                raise LayoutError(
                    f"The {self._when} field {name!r} is not declared in the campaign file, which "
                    f"has {', '.join(self._fields) or 'none'}. Declare it under [fields.{name}] or "
                    "leave it out."
                )
        missing = next(name for name in self._fields if name not in given)
        raise LayoutError(f"The {self._when} lacks the field {missing!r} of the campaign file.")


def _owned_values(spec: FieldSpec, shape: tuple[int, ...], given: Any) -> np.ndarray:
    """What was given for a field as an array of the shape that this rank owns, without a copy."""
    values = given if type(given) is np.ndarray else np.asarray(given)
    if values.shape != shape:
        values = _without_ones(values, shape)
    if values.dtype.kind not in "fiub":
        raise LayoutError(f"Field {spec.name!r} came as {values.dtype}; real numbers are expected.")
    if values.shape != shape:
        raise _wrong_shape(spec, f"came with the shape {values.shape}", shape)
    return values


def _wrong_shape(spec: FieldSpec, came: str, shape: tuple[int, ...]) -> LayoutError:
    return LayoutError(
        f"Field {spec.name!r} {came}; this rank's part has the shape {shape}. Correct "
        f"[fields.{spec.name}] or the layout."
    )


def _without_ones(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The values in this shape if only axes of length 1 are in the way, else as they are."""
    return values.reshape(shape) if _long_axes(values.shape) == _long_axes(shape) else values


def _long_axes(shape: tuple[int, ...]) -> list[int]:
    return [n for n in shape if n != 1]
