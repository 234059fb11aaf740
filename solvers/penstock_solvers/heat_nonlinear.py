"""Heat conduction with a conductivity that grows with temperature: FEniCSx, Newton (SNES).

    du/dt = div(k(u) grad u),    k(u) = alpha (1 + beta u)     in the unit square
    u = T1, T2, T3, T4           on the left, right, bottom and top side
    u = T0                       at t = 0

P1 triangles and implicit Euler; each step is a Newton solve from the last temperature. k stays
positive for u > -1/beta, so far below every boundary value that no iterate gets there.

Field `temperature` (n, n) in K: temperature[i, j] is at x = j/(n-1), y = i/(n-1). Parameters: alpha
in [0.01, 1], to be drawn log-uniformly, T0 and T1..T4, each in [100, 500] K. Good values: n = 32,
100 steps of dt = 0.01, beta = 0.005 per K (k grows 2.3-fold from 100 to 500 K). `bcgs+ilu` is two
to four times faster than `lu` at 100 x 100.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dolfinx.fem.petsc
import numpy as np
import ufl
from dolfinx import fem
from mpi4py import MPI
from petsc4py import PETSc

import penstock
from penstock_solvers import command, compat
from penstock_solvers.direct import use_lu
from penstock_solvers.heat_data import TEMPERATURES, Array, Diverged, HeatData, five_temperatures
from penstock_solvers.square import Square

KSP_CHOICES = ("bcgs+ilu", "lu")
BOX = {"alpha": (0.01, 1.0), **TEMPERATURES}


class HeatNonlinear:
    """Mesh, forms, matrix and SNES: built once per process, for all of its simulations."""

    def __init__(
        self,
        comm: Any,
        n: int = 32,
        dt: float = 0.01,
        beta: float = 0.005,
        ksp: str = "bcgs+ilu",
        rtol: float = 1e-10,
    ) -> None:
        self.square = Square(comm, n)
        self.dt = dt
        space, mesh = self.square.space, self.square.mesh
        self.u, self.last = fem.Function(space), fem.Function(space)
        self.heat = fem.Function(space)  # the source, nodal values
        self.alpha = fem.Constant(mesh, PETSc.ScalarType(1.0))
        step = fem.Constant(mesh, PETSc.ScalarType(dt))
        growth = fem.Constant(mesh, PETSc.ScalarType(beta))
        v = ufl.TestFunction(space)
        conductivity = self.alpha * (1.0 + growth * self.u)
        flux = ufl.inner(conductivity * ufl.grad(self.u), ufl.grad(v))
        residual = ((self.u - self.last - step * self.heat) * v + step * flux) * ufl.dx
        self.residual = compat.compile_form(residual)
        self.jacobian = compat.compile_form(
            ufl.derivative(residual, self.u, ufl.TrialFunction(space))
        )
        self.matrix = dolfinx.fem.petsc.create_matrix(self.jacobian)
        self.matrix.setOption(PETSc.Mat.Option.KEEP_NONZERO_PATTERN, True)
        self.snes = self._newton(ksp, rtol)
        first = self.matrix.getOwnershipRange()[0]
        self.rows = (self.square.sides + first).astype(PETSc.IntType)
        self.boundary = np.zeros(len(self.square.sides))
        self.iterate = compat.petsc_vector(self.u).duplicate()  # SNES locks its own unknown

    def march(self, data: HeatData, steps: int, alpha: float) -> Iterator[tuple[float, Array]]:
        """Yields (t, values of this rank) after each of `steps` implicit Euler steps."""
        square = self.square
        x, y, sides = square.x, square.y, square.sides
        self.alpha.value = alpha
        iterate = self.iterate
        iterate.array[:] = data.value(x, y, 0.0)
        self.heat.x.array[:] = 0.0
        for k in range(1, steps + 1):
            t = k * self.dt
            _assign(self.last, iterate)
            self.boundary[:] = data.value(x[sides], y[sides], t)
            iterate.array[sides] = self.boundary
            if data.source is not None:
                self.heat.x.array[: square.n_owned] = data.source(x, y, t)
                self.heat.x.scatter_forward()
            self.snes.solve(None, iterate)
            if self.snes.getConvergedReason() < 0:
                raise Diverged(
                    f"Newton's method failed in step {k}: PETSc's reason is "
                    f"{self.snes.getConvergedReason()}. Try a smaller --dt."
                )
            yield t, square.field(iterate.array)

    def _newton(self, choice: str, rtol: float) -> Any:
        """SNES that stops relative to the step's first residual, or to a field of about 300 K."""
        snes = PETSc.SNES().create(self.square.comm)
        snes.setFunction(self._residual, compat.create_vector(self.residual, self.square.space))
        snes.setJacobian(self._jacobian, self.matrix)
        snes.setTolerances(rtol=rtol, atol=rtol * 30.0 / self.square.n, stol=0.0, max_it=25)
        if choice == "lu":
            use_lu(snes.getKSP())
        elif choice in KSP_CHOICES:
            snes.getKSP().setType("bcgs")
            snes.getKSP().setTolerances(rtol=1e-8)
            snes.getKSP().getPC().setType("bjacobi")  # one ILU(0) a rank
        else:
            raise ValueError(f"ksp is one of {', '.join(KSP_CHOICES)}; {choice!r} was given.")
        return snes

    def _residual(self, snes: Any, x: Any, f: Any) -> None:
        _assign(self.u, x)
        with f.localForm() as local:
            local.set(0.0)
        dolfinx.fem.petsc.assemble_vector(f, self.residual)
        f.ghostUpdate(PETSc.InsertMode.ADD, PETSc.ScatterMode.REVERSE)
        f.array[self.square.sides] = self.u.x.array[self.square.sides] - self.boundary

    def _jacobian(self, snes: Any, x: Any, matrix: Any, preconditioner: Any) -> None:
        preconditioner.zeroEntries()
        dolfinx.fem.petsc.assemble_matrix(preconditioner, self.jacobian)
        preconditioner.assemble()
        preconditioner.zeroRows(self.rows, 1.0)


def _assign(function: Any, vector: Any) -> None:
    """The values of a PETSc vector into a Function, ghosts included; collective."""
    owned = vector.array_r
    function.x.array[: len(owned)] = owned
    function.x.scatter_forward()


def solve(
    parameters: Mapping[str, float], setup: HeatNonlinear, steps: int = 100
) -> Iterator[tuple[float, Array]]:
    """Yields (t, temperatures that this rank owns) for one simulation; raises Diverged."""
    return setup.march(five_temperatures(parameters), steps, float(parameters["alpha"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs simulation after simulation for a campaign, or a single one on its own."""
    parser = command.parser(__doc__ or "", BOX, logarithmic=("alpha",))
    parser.add_argument("--n", type=int, default=32, help="nodes on a side; default 32")
    parser.add_argument("--steps", type=int, default=100, help="time steps; default 100")
    parser.add_argument("--dt", type=float, default=0.01, help="time step; default 0.01")
    parser.add_argument("--beta", type=float, default=0.005, help="growth per K; default 0.005")
    parser.add_argument("--ksp", choices=KSP_CHOICES, default="bcgs+ilu", help="linear solver")
    parser.add_argument("--rtol", type=float, default=1e-10, help="of Newton; default 1e-10")
    options = parser.parse_args(arguments)

    comm, n = MPI.COMM_WORLD, options.n
    setup = HeatNonlinear(comm, n, options.dt, options.beta, options.ksp, options.rtol)
    with penstock.connect(comm, parameters=command.parameters(options, BOX)) as link:
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


if __name__ == "__main__":
    main()
