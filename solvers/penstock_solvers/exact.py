"""Exact solutions of the solvers' equations; the tests measure orders of convergence with them.

Each heat solution is a HeatData whose `value` is the solution itself at every x, y and t and whose
`source` is what the equation then needs. Implicit Euler is exact for `linear_in_time`, P1 elements
and second differences are exact for `linear_in_space`: so each order is seen alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from penstock_solvers.heat_data import Array, HeatData


def linear_in_time(alpha: float = 1.0, beta: float = 0.0) -> HeatData:
    """u = 300 + 100 (1 + t) sin(pi x + 0.3) cos(pi y - 0.2) for conductivity alpha (1 + beta u)."""

    def parts(x: Array, y: Array) -> tuple[Array, Array]:
        a, b = math.pi * x + 0.3, math.pi * y - 0.2
        shape = np.sin(a) * np.cos(b)
        slope_squared = (np.cos(a) * np.cos(b)) ** 2 + (np.sin(a) * np.sin(b)) ** 2
        return shape, math.pi**2 * slope_squared

    def value(x: Array, y: Array, t: float) -> Array:
        return 300.0 + 100.0 * (1.0 + t) * parts(x, y)[0]

    def source(x: Array, y: Array, t: float) -> Array:
        shape, slope_squared = parts(x, y)
        amplitude = 100.0 * (1.0 + t)
        conductivity = alpha * (1.0 + beta * (300.0 + amplitude * shape))
        laplacian = -2.0 * math.pi**2 * amplitude * shape
        gradient_squared = amplitude**2 * slope_squared
        return 100.0 * shape - conductivity * laplacian - alpha * beta * gradient_squared

    return HeatData(value, source)


def linear_in_space(alpha: float = 1.0, beta: float = 0.0) -> HeatData:
    """u = 300 + 50 exp(-3 t) (1 + x + 2 y) for conductivity alpha (1 + beta u)."""

    def value(x: Array, y: Array, t: float) -> Array:
        return 300.0 + 50.0 * math.exp(-3.0 * t) * (1.0 + x + 2.0 * y)

    def source(x: Array, y: Array, t: float) -> Array:
        g = 50.0 * math.exp(-3.0 * t)
        return -3.0 * g * (1.0 + x + 2.0 * y) - alpha * beta * 5.0 * g**2

    return HeatData(value, source)


def decaying_mode(alpha: float = 1.0, kx: int = 1, ky: int = 1) -> HeatData:
    """u = sin(kx pi x) sin(ky pi y) exp(-alpha pi^2 (kx^2 + ky^2) t): no source, zero boundary."""
    rate = alpha * math.pi**2 * (kx**2 + ky**2)

    def value(x: Array, y: Array, t: float) -> Array:
        return math.exp(-rate * t) * np.sin(kx * math.pi * x) * np.sin(ky * math.pi * y)

    return HeatData(value, steady=True)


def steady_centre(parameters: Mapping[str, float]) -> float:
    """The steady temperature in the centre of the square with four constant sides: their mean.

    The four solutions with one hot side are rotations of each other and add up to a constant.
    """
    return sum(float(parameters[name]) for name in ("T1", "T2", "T3", "T4")) / 4.0


def lorenz_axis(z0: float, t: float, beta: float = 8.0 / 3.0) -> Array:
    """Lorenz started on the z axis stays there: (0, 0, z0 exp(-beta t)), shape (3,)."""
    return np.array([0.0, 0.0, z0 * math.exp(-beta * t)])
