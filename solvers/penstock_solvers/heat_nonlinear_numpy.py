"""Heat conduction with a conductivity that grows with temperature, with numpy alone.

    du/dt = div(k(u) grad u),    k(u) = alpha (1 + beta u)     in the unit square
    u = T1, T2, T3, T4           on the left, right, bottom and top side
    u = T0                       at t = 0

The same problem, parameters and field as penstock_solvers.heat_nonlinear; one process. With the
Kirchhoff variable w = u + beta u^2 / 2 the flux is alpha grad w, so that second differences and
implicit Euler leave u(w) - dt alpha laplace(w) = rhs: a Laplacian and a nonlinear diagonal.
Newton's method solves it from where the last two steps point to, each linear system by conjugate
gradients, preconditioned in single precision with the same Laplacian and the mean of the diagonal
(fast diagonalisation, Lynch, Rice & Thomas 1964); the systems are solved only as well as the Newton
step deserves (Dembo, Eisenstat & Steihaug 1982).

Field `temperature` (n, n) in K: temperature[i, j] is at x = j/(n-1), y = i/(n-1). Parameters: alpha
in [0.01, 1], to be drawn log-uniformly, T0 and T1..T4, each in [100, 500] K. Good values: n up to
200, 100 steps of dt = 0.01, beta = 0.005 per K (k grows 2.3-fold from 100 to 500 K).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

import penstock
from penstock_solvers import command
from penstock_solvers.heat_data import (
    TEMPERATURES,
    Array,
    Diverged,
    HeatData,
    five_temperatures,
    square_nodes,
)
from penstock_solvers.heat_numpy import HeatNumpy
from penstock_solvers.pace import Pace

BOX = {"alpha": (0.01, 1.0), **TEMPERATURES}
TOLERANCE_K = 1e-6  # of the residual; float32, in which fields travel, resolves 3e-5 K
FORCING = 0.03  # by how much a linear solve reduces its residual
EPSILON = float(np.finfo(np.float64).eps)
MOST_NEWTON, MOST_CG = 30, 100


class HeatNonlinearNumpy:
    """The sines of one grid, and the march on it; for all simulations of a process."""

    def __init__(self, n: int = 32, dt: float = 0.01, beta: float = 0.005) -> None:
        if beta <= 0:
            raise ValueError(
                f"beta must be positive, got {beta}; without growth the problem is that of "
                "penstock_solvers.heat_numpy."
            )
        self.n, self.dt, self.beta = n, dt, beta
        self._linear = HeatNumpy(n, dt, 1.0)
        self._laplacian = self._linear.implicit - 1.0  # dt / h^2 times its eigenvalues, alpha = 1
        self._sines = self._linear.sines.astype(np.float32)

    def march(self, data: HeatData, steps: int, alpha: float) -> Iterator[tuple[float, Array]]:
        """Yields (t, field (n, n)) after each of `steps` implicit Euler steps."""
        x, y = square_nodes(self.n)
        inside = (slice(1, -1), slice(1, -1))
        weight = alpha * self._linear.weight  # dt alpha / h^2
        field = data.value(x, y, 0.0)
        before = w = self.kirchhoff(field[inside])
        for k in range(1, steps + 1):
            t = k * self.dt
            rhs = field[inside].copy()
            if data.source is not None:
                rhs += self.dt * data.source(x[inside], y[inside], t)
            if k == 1 or not data.steady:
                sides = self.kirchhoff(data.value(x, y, t))
                sides[inside] = 0.0
                at_sides = weight * neighbours(sides)
            before, w = w, self._solve(self._inside(2.0 * w - before, w), rhs + at_sides, alpha, k)
            field = data.value(x, y, t) if not data.steady or k == 1 else field.copy()
            field[inside] = self.temperature(w)
            yield t, field

    def kirchhoff(self, u: Array) -> Array:
        """w = u + beta u^2 / 2."""
        return u * (1.0 + 0.5 * self.beta * u)

    def temperature(self, w: Array) -> Array:
        """u of w."""
        u: Array = (np.sqrt(1.0 + 2.0 * self.beta * w) - 1.0) / self.beta
        return u

    def _solve(self, w: Array, rhs: Array, alpha: float, step: int) -> Array:
        """u(w) - dt alpha laplace(w) = rhs, (n-2, n-2), by Newton's method from w."""
        weight = alpha * self._linear.weight
        # On fine grids with long steps (n = 300, dt = 1) the terms of the residual are so large
        # that their rounding is above TOLERANCE_K.
        largest = weight * float(np.abs(w).max()) + float(np.abs(rhs).max())
        tolerance = max(TOLERANCE_K, 16.0 * EPSILON * largest)
        for _ in range(MOST_NEWTON):
            root = np.sqrt(1.0 + 2.0 * self.beta * w)
            residual = rhs - (root - 1.0) / self.beta - weight * minus_laplace(w)
            worst = float(np.abs(residual).max())
            if not np.isfinite(worst):
                break
            if worst <= tolerance:
                return w
            change = self._conjugate_gradients(residual, 1.0 / root, alpha)
            w = self._inside(w + change, w)
        raise Diverged(
            f"Newton's method did not reach {tolerance:.3g} K in step {step}: the residual is "
            f"{worst:.3g} K. Try a smaller --dt."
        )

    def _inside(self, new: Array, old: Array) -> Array:
        """The new w, where u(w) is defined: from the old one half of the way out at the most."""
        inside: Array = np.maximum(new, 0.5 * (old - 0.5 / self.beta))
        return inside

    def _conjugate_gradients(self, residual: Array, diagonal: Array, alpha: float) -> Array:
        """(diagonal - dt alpha laplace) x = residual, down to FORCING of it."""
        weight = alpha * self._linear.weight
        inverse = 1.0 / (diagonal.mean() + alpha * self._laplacian).astype(np.float32)
        x = np.zeros_like(residual)
        r = residual
        target = FORCING * float(np.linalg.norm(r))
        z = self._precondition(r, inverse)
        p, rz = z, float(np.vdot(r, z))
        for _ in range(MOST_CG):
            applied = diagonal * p + weight * minus_laplace(p)
            step = rz / float(np.vdot(p, applied))
            x = x + step * p
            r = r - step * applied
            if float(np.linalg.norm(r)) <= target:
                break
            z = self._precondition(r, inverse)
            last, rz = rz, float(np.vdot(r, z))
            p = z + (rz / last) * p
        return x

    def _precondition(self, residual: Array, inverse: Array) -> Array:
        """Divides each sine mode of the residual by its eigenvalue; `inverse` in float32."""
        sines = self._sines
        modes = inverse * (sines @ residual.astype(np.float32) @ sines)
        return (sines @ modes @ sines).astype(np.float64)


def neighbours(field: Array) -> Array:
    """The sum of each inner node's four neighbours: (n, n) to (n-2, n-2)."""
    total: Array = field[:-2, 1:-1] + field[2:, 1:-1] + field[1:-1, :-2] + field[1:-1, 2:]
    return total


def minus_laplace(inner: Array) -> Array:
    """4 w minus its neighbours, with zero around the inner nodes; h = 1."""
    result: Array = 4.0 * inner
    result[1:] -= inner[:-1]
    result[:-1] -= inner[1:]
    result[:, 1:] -= inner[:, :-1]
    result[:, :-1] -= inner[:, 1:]
    return result


def solve(
    parameters: Mapping[str, float], setup: HeatNonlinearNumpy, steps: int = 100
) -> Iterator[tuple[float, Array]]:
    """Yields (t, temperature (n, n)) for one simulation; raises Diverged."""
    return setup.march(five_temperatures(parameters), steps, float(parameters["alpha"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs simulation after simulation for a campaign, or a single one on its own."""
    parser = command.parser(__doc__ or "", BOX, logarithmic=("alpha",))
    parser.add_argument("--n", type=int, default=32, help="nodes on a side; default 32")
    parser.add_argument("--steps", type=int, default=100, help="time steps; default 100")
    parser.add_argument("--dt", type=float, default=0.01, help="time step; default 0.01")
    parser.add_argument("--beta", type=float, default=0.005, help="growth per K; default 0.005")
    Pace.add_options(parser)
    options = parser.parse_args(arguments)

    setup = HeatNonlinearNumpy(options.n, options.dt, options.beta)
    pace = Pace.of(options, BOX)
    with penstock.connect(parameters=command.parameters(options, BOX)) as link:
        for sim in link.simulations():
            try:
                for t, u in solve(sim.parameters, setup, options.steps):
                    pace.rest(sim.parameters)
                    sim.send(t, temperature=u)
                    if sim.cancelled:
                        break
            except Diverged as error:
                sim.fail(str(error))


if __name__ == "__main__":
    main()
