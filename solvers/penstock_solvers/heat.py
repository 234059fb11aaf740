"""The heat equation in two dimensions, with FEniCSx: P1 triangles and implicit Euler.

    du/dt = alpha laplace(u)     in the unit square, t in (0, steps * dt]
    u = T1, T2, T3, T4           on the left, right, bottom and top side
    u = T0                       at t = 0

Field `temperature` (n, n) in K: temperature[i, j] is at x = j/(n-1), y = i/(n-1). Parameters: T0
and T1..T4, each in [100, 500] K. Good values: 100 steps of dt = 0.01 with alpha = 1, as in Meyer et
al. (SC'23), who use n = 1000; n = 32 to try things out. `lu` factorises once and gives the fastest
steps up to n = 600 at least; `cg+hypre` needs less memory and time to set up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dolfinx.fem.petsc
import ufl
from mpi4py import MPI
from petsc4py import PETSc

import penstock
from penstock_solvers import command, compat
from penstock_solvers.direct import use_lu
from penstock_solvers.heat_data import TEMPERATURES, Array, Diverged, HeatData, five_temperatures
from penstock_solvers.square import Square

KSP_CHOICES = ("lu", "cg+hypre", "cg+jacobi")


class Heat:
    """Mesh, matrices and factorisation: built once per process, for all of its simulations."""

    def __init__(
        self,
        comm: Any,
        n: int = 32,
        dt: float = 0.01,
        alpha: float = 1.0,
        ksp: str = "lu",
        rtol: float = 1e-10,
    ) -> None:
        self.square = Square(comm, n)
        self.dt = dt
        u, v = ufl.TrialFunction(self.square.space), ufl.TestFunction(self.square.space)
        self.mass = _assembled(u * v * ufl.dx)
        stiffness = _assembled(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
        self.full = self.mass.copy()  # M + dt alpha K, boundary nodes included
        self.full.axpy(dt * alpha, stiffness, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
        matrix = self.full.copy()
        first = matrix.getOwnershipRange()[0]
        matrix.zeroRowsColumns((self.square.sides + first).astype(PETSc.IntType), 1.0)
        self.ksp = _linear_solver(comm, matrix, ksp, rtol)

    def march(self, data: HeatData, steps: int) -> Iterator[tuple[float, Array]]:
        """Yields (t, values of this rank) after each of `steps` implicit Euler steps."""
        square, dt = self.square, self.dt
        x, y, sides = square.x, square.y, square.sides
        u, b, work, boundary, lift = (self.mass.createVecLeft() for _ in range(5))
        u.array[:] = data.value(x, y, 0.0)
        for k in range(1, steps + 1):
            t = k * dt
            if k == 1 or not data.steady:
                boundary.array[sides] = data.value(x[sides], y[sides], t)
                self.full.mult(boundary, lift)
            if data.source is None:
                self.mass.mult(u, b)
            else:
                work.array[:] = u.array + dt * data.source(x, y, t)
                self.mass.mult(work, b)
            b.axpy(-1.0, lift)
            b.array[sides] = boundary.array[sides]
            self.ksp.solve(b, u)
            if self.ksp.getConvergedReason() < 0:
                raise Diverged(
                    f"The linear solve of step {k} failed: PETSc's reason is "
                    f"{self.ksp.getConvergedReason()}. Try --ksp lu."
                )
            yield t, square.field(u.array)


def solve(
    parameters: Mapping[str, float], setup: Heat, steps: int = 100
) -> Iterator[tuple[float, Array]]:
    """Yields (t, temperatures that this rank owns) for one simulation; raises Diverged."""
    return setup.march(five_temperatures(parameters), steps)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs simulation after simulation for a campaign, or a single one on its own."""
    parser = command.parser(__doc__ or "", TEMPERATURES)
    parser.add_argument("--n", type=int, default=32, help="nodes on a side; default 32")
    parser.add_argument("--steps", type=int, default=100, help="time steps; default 100")
    parser.add_argument("--dt", type=float, default=0.01, help="time step; default 0.01")
    parser.add_argument("--alpha", type=float, default=1.0, help="diffusivity; default 1")
    parser.add_argument("--ksp", choices=KSP_CHOICES, default="lu", help="solver; default lu")
    parser.add_argument("--rtol", type=float, default=1e-10, help="of cg; default 1e-10")
    options = parser.parse_args(arguments)

    comm, n = MPI.COMM_WORLD, options.n
    setup = Heat(comm, n, options.dt, options.alpha, options.ksp, options.rtol)
    with penstock.connect(comm, parameters=command.parameters(options, TEMPERATURES)) as link:
        if comm.size > 1:
            link.layout("temperature", global_shape=(n, n), owned=setup.square.owned)
        for sim in link.simulations():
            try:
                for t, u in solve(sim.parameters, setup, options.steps):
                    sim.send(t, temperature=u)
                    if sim.cancelled:
                        break
            except Diverged as error:
                sim.fail(str(error))


def _assembled(form: Any) -> Any:
    matrix = dolfinx.fem.petsc.assemble_matrix(compat.compile_form(form))
    matrix.assemble()
    return matrix


def _linear_solver(comm: Any, matrix: Any, choice: str, rtol: float) -> Any:
    """Factorises or preconditions `matrix` once; symmetric positive definite."""
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(matrix)
    ksp.setTolerances(rtol=rtol, atol=0.0, max_it=10000)
    if choice == "lu":
        use_lu(ksp)
    elif choice in KSP_CHOICES:
        ksp.setType("cg")
        ksp.getPC().setType("hypre" if choice == "cg+hypre" else "jacobi")
        ksp.setInitialGuessNonzero(True)
    else:
        raise ValueError(f"ksp is one of {', '.join(KSP_CHOICES)}; {choice!r} was given.")
    ksp.setUp()
    return ksp


if __name__ == "__main__":
    main()
