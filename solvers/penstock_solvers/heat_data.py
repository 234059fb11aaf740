"""The data of a heat problem on the unit square, shared by the three heat solvers and exact.py.

Nodes: field[i, j] of an n x n field is the temperature at x = j/(n-1), y = i/(n-1); the flat
index is i*n + j. Every solver of this package keeps to this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = Callable[[Array, Array, float], Array]

TEMPERATURES = dict.fromkeys(("T0", "T1", "T2", "T3", "T4"), (100.0, 500.0))


class Diverged(RuntimeError):
    """The linear or nonlinear solve of one time step failed; ends this simulation only."""


@dataclass(frozen=True)
class HeatData:
    """Initial, boundary and source data as functions of x, y (arrays of one shape, in m) and t.

    `value` is the initial temperature at t = 0 and the boundary temperature at every t > 0;
    `steady` says that the boundary does not depend on t, which saves work in every step.
    """

    value: Function
    source: Function | None = None
    steady: bool = False


def five_temperatures(parameters: Mapping[str, float]) -> HeatData:
    """T0 inside; T1 left (x=0), T2 right (x=1), T3 bottom (y=0), T4 top (y=1), in K.

    A corner takes the mean of its two sides, so that no side is preferred.
    """
    sides = [float(parameters[name]) for name in ("T1", "T2", "T3", "T4")]

    def value(x: Array, y: Array, t: float) -> Array:
        masks = boundary_masks(x, y)
        count = sum(mask.astype(np.float64) for mask in masks)
        total = sum(side * mask for side, mask in zip(sides, masks))
        return np.where(count > 0, total / np.maximum(count, 1.0), float(parameters["T0"]))

    return HeatData(value, steady=True)


def boundary_masks(x: Array, y: Array) -> tuple[NDArray[np.bool_], ...]:
    """Which nodes lie on the left, right, bottom and top side; four arrays of the shape of x."""
    tiny = 1e-10
    return x < tiny, x > 1 - tiny, y < tiny, y > 1 - tiny


def square_nodes(n: int) -> tuple[Array, Array]:
    """Coordinates of all nodes: x and y, each (n, n)."""
    line = np.linspace(0.0, 1.0, n)
    y, x = np.meshgrid(line, line, indexing="ij")
    return x, y
