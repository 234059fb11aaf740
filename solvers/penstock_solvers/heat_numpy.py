"""The heat equation in two dimensions, with numpy alone: second differences and implicit Euler.

    du/dt = alpha laplace(u)     in the unit square, t in (0, steps * dt]
    u = T1, T2, T3, T4           on the left, right, bottom and top side
    u = T0                       at t = 0

The same problem, parameters and field as penstock_solvers.heat, for machines without DOLFINx; one
process. The implicit system is diagonal in the sines of the (n-2) inner nodes of each line (fast
diagonalisation, Lynch, Rice & Thomas 1964), so that a step is two products of dense matrices.

Field `temperature` (n, n) in K: temperature[i, j] is at x = j/(n-1), y = i/(n-1). Parameters: T0
and T1..T4, each in [100, 500] K. Good values: n up to 200, dt = 0.01, alpha = 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

import penstock
from penstock_solvers import command
from penstock_solvers.heat_data import (
    TEMPERATURES,
    Array,
    HeatData,
    five_temperatures,
    square_nodes,
)
from penstock_solvers.pace import Pace


class HeatNumpy:
    """The sines and the eigenvalues of the implicit step: built once, for all simulations."""

    def __init__(self, n: int = 32, dt: float = 0.01, alpha: float = 1.0) -> None:
        if n < 3:
            raise ValueError(f"At least 3 x 3 nodes are needed to have one inside; n = {n}.")
        self.n, self.dt = n, dt
        self.x, self.y = square_nodes(n)
        self.weight = dt * alpha * (n - 1) ** 2  # dt alpha / h^2
        k = np.arange(1, n - 1)
        self.sines: Array = np.sqrt(2 / (n - 1)) * np.sin(np.pi * np.outer(k, k) / (n - 1))
        eigenvalues = 4.0 * np.sin(np.pi * k / (2 * (n - 1))) ** 2
        self.implicit = 1.0 + self.weight * (eigenvalues[:, None] + eigenvalues[None, :])

    def modes(self, inner: Array) -> Array:
        """Inner nodal values (n-2, n-2) to sine coefficients; its own inverse."""
        coefficients: Array = self.sines @ inner @ self.sines
        return coefficients

    def march(self, data: HeatData, steps: int) -> Iterator[tuple[float, Array]]:
        """Yields (t, field (n, n)) after each of `steps` implicit Euler steps."""
        x, y = self.x, self.y
        inside = (slice(1, -1), slice(1, -1))
        u = self.modes(data.value(x, y, 0.0)[inside])
        for k in range(1, steps + 1):
            t = k * self.dt
            if k == 1 or not data.steady:
                field = data.value(x, y, t)
                field[inside] = 0.0
                neighbours = field[:-2, 1:-1] + field[2:, 1:-1] + field[1:-1, :-2] + field[1:-1, 2:]
                boundary = self.weight * self.modes(neighbours)
            rhs = u + boundary
            if data.source is not None:
                rhs += self.dt * self.modes(data.source(x[inside], y[inside], t))
            u = rhs / self.implicit
            result = field.copy()
            result[inside] = self.modes(u)
            yield t, result


def solve(
    parameters: Mapping[str, float], setup: HeatNumpy, steps: int = 100
) -> Iterator[tuple[float, Array]]:
    """Yields (t, temperature (n, n)) for one simulation."""
    return setup.march(five_temperatures(parameters), steps)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs simulation after simulation for a campaign, or a single one on its own."""
    parser = command.parser(__doc__ or "", TEMPERATURES)
    parser.add_argument("--n", type=int, default=32, help="nodes on a side; default 32")
    parser.add_argument("--steps", type=int, default=100, help="time steps; default 100")
    parser.add_argument("--dt", type=float, default=0.01, help="time step; default 0.01")
    parser.add_argument("--alpha", type=float, default=1.0, help="diffusivity; default 1")
    Pace.add_options(parser)
    options = parser.parse_args(arguments)

    setup = HeatNumpy(options.n, options.dt, options.alpha)
    pace = Pace.of(options, TEMPERATURES)
    with penstock.connect(parameters=command.parameters(options, TEMPERATURES)) as link:
        for sim in link.simulations():
            for t, u in solve(sim.parameters, setup, options.steps):
                pace.rest(sim.parameters)
                sim.send(t, temperature=u)
                if sim.cancelled:
                    break


if __name__ == "__main__":
    main()
