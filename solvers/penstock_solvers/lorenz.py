"""The Lorenz system, with numpy alone and the classical Runge-Kutta method of order 4.

    x' = sigma (y - x),    y' = x (rho - z) - y,    z' = x y - beta z

with sigma = 10 and beta = 8/3 (Lorenz 1963). Field `state` (3,): x, y, z; one process. Parameters:
the start x0, y0 in [-15, 15] and z0 in [10, 40], and rho in [20, 40]. Good values: 200 steps of
dt = 0.01, about two turns; neighbouring starts stay close for roughly t < 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

import penstock
from penstock_solvers import command
from penstock_solvers.heat_data import Array

BOX = {"x0": (-15.0, 15.0), "y0": (-15.0, 15.0), "z0": (10.0, 40.0), "rho": (20.0, 40.0)}
SIGMA, BETA = 10.0, 8.0 / 3.0


def solve(
    parameters: Mapping[str, float], steps: int = 200, dt: float = 0.01
) -> Iterator[tuple[float, Array]]:
    """Yields (t, state (3,)) after each of `steps` steps."""
    rho = float(parameters["rho"])
    state = np.array([parameters[name] for name in ("x0", "y0", "z0")], dtype=np.float64)
    for k in range(1, steps + 1):
        a = slope(state, rho)
        b = slope(state + 0.5 * dt * a, rho)
        c = slope(state + 0.5 * dt * b, rho)
        d = slope(state + dt * c, rho)
        state = state + dt / 6.0 * (a + 2.0 * b + 2.0 * c + d)
        yield k * dt, state


def slope(state: Array, rho: float) -> Array:
    """The right-hand side, (3,)."""
    x, y, z = state
    return np.array([SIGMA * (y - x), x * (rho - z) - y, x * y - BETA * z])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs simulation after simulation for a campaign, or a single one on its own."""
    parser = command.parser(__doc__ or "", BOX)
    parser.add_argument("--steps", type=int, default=200, help="time steps; default 200")
    parser.add_argument("--dt", type=float, default=0.01, help="time step; default 0.01")
    options = parser.parse_args(arguments)

    with penstock.connect(parameters=command.parameters(options, BOX)) as link:
        for sim in link.simulations():
            for t, state in solve(sim.parameters, options.steps, options.dt):
                sim.send(t, state=state)
                if sim.cancelled:
                    break


if __name__ == "__main__":
    main()
