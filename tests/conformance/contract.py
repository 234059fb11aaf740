"""What a program under test has to send: the README's contract as numpy; for shards and stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DEFAULTS = {"steps": 42.0, "fail_at": -1.0, "timed": 1.0, "pause_s": 0.0, "a": 0.0, "b": 0.0}


class Contract:
    """The conformance program's. Every value is exact in float32, so that no order of operations
    can make a difference; another program (heat.py) says how far values may be off.
    """

    shapes: Mapping[str, tuple[int, ...]] = {"u": (4, 6), "v": (5,), "w": (5,), "x": (64, 256)}
    inputs: frozenset[str] = frozenset("v")
    relative_error = 0.0

    def calls(self, given: Mapping[str, float]) -> int:
        """How often the program sends in one simulation of these parameters."""
        values = {**DEFAULTS, **given}
        limit = values["fail_at"] if values["fail_at"] >= 0 else values["steps"]
        return int(min(limit, values["steps"]))

    def time_of(self, call: int, given: Mapping[str, float]) -> float | None:
        return call / 100 if {**DEFAULTS, **given}["timed"] else None

    def field(self, name: str, call: int, seed: int, given: Mapping[str, float]) -> Array:
        """The global field, in the solver's precision; inputs are the same at any call."""
        values = {**DEFAULTS, **given}
        i = np.arange(self.shapes[name][0], dtype=np.float64)
        if name == "v":
            return np.asarray((1 + seed % 64) * 2.0 ** (2 - i))
        if name == "w":
            return np.asarray((-1) ** call * values["b"] * 2.0**-i)
        columns = self.shapes[name][1]
        grid = columns * i[:, None] + np.arange(columns)
        if name == "x":
            return np.asarray(call + grid)
        return np.asarray(values["a"] + 1000.0 * call + grid + (seed % 64) / 64)

    def agrees(self, found: Array, expected: Array) -> bool:
        if not self.relative_error:
            return np.array_equal(found, expected)
        largest = float(np.abs(expected).max())
        return float(np.abs(found - expected).max()) <= self.relative_error * largest


CONTRACT = Contract()


def sent(values: Array, spec: Mapping[str, Any]) -> Array:
    """What the campaign wants of a global field, as WIRE.md says it."""
    crop = spec.get("crop") or [(0, n) for n in values.shape]
    stride = spec.get("stride") or [1] * values.ndim
    cut = tuple(slice(*ends, by) for ends, by in zip(crop, stride, strict=True))
    chosen = values[cut]
    if spec.get("keep_components"):
        chosen = chosen[..., list(spec["keep_components"])]
    return chosen.astype(spec["dtype"])
