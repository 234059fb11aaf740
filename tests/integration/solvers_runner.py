"""Runs FEniCSx cases under the solver interpreter; test_solvers_fenicsx.py calls it.

Usage: [mpirun -n N] python solvers_runner.py orders|fields|compat; prints one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import ufl
from dolfinx import fem
from mpi4py import MPI

from penstock_solvers import compat, exact, heat, heat_nonlinear, heat_numpy
from penstock_solvers.heat_data import square_nodes
from penstock_solvers.square import Square

COMM = MPI.COMM_WORLD
PARAMETERS = {"T0": 150.0, "T1": 480.0, "T2": 120.0, "T3": 333.0, "T4": 222.0, "alpha": 0.1}
BETA = 0.005


def gather(square: Square, values: Any) -> Any:
    """The whole field (n, n) on every rank."""
    whole = np.full(square.n**2, np.nan)
    for owned, part in COMM.allgather((square.owned, values.ravel())):
        whole[owned] = part
    return whole.reshape(square.n, square.n)


def last(steps: Iterator[tuple[float, Any]]) -> tuple[float, Any]:
    """The last step of a solve."""
    *_, result = steps
    return result


def errors(case: str, sizes: list[tuple[int, float, int]]) -> list[float]:
    """Largest error at the end, for each (n, dt, steps)."""
    solver, order = case.split("-")
    found = []
    for n, dt, steps in sizes:
        make = exact.linear_in_time if order == "space" else exact.linear_in_space
        if solver == "heat":
            setup: Any = heat.Heat(COMM, n, dt, alpha=0.7)
            data = make(0.7)
            t, values = last(setup.march(data, steps))
        else:
            setup = heat_nonlinear.HeatNonlinear(COMM, n, dt, beta=BETA)
            data = make(0.3, BETA)
            t, values = last(setup.march(data, steps, alpha=0.3))
        wrong = gather(setup.square, values) - data.value(*square_nodes(n), t)
        found.append(float(np.abs(wrong).max()))
    return found


def orders() -> dict[str, Any]:
    """Errors that halving h, and halving dt, leaves; and heat against heat_numpy."""
    space = [(9, 0.02, 10), (17, 0.02, 10), (33, 0.02, 10)]
    time = [(5, 0.1, 5), (5, 0.05, 10), (5, 0.025, 20)]
    result: dict[str, Any] = {}
    for solver in ("heat", "nonlinear"):
        result[f"{solver}-space"] = errors(f"{solver}-space", space)
        result[f"{solver}-time"] = errors(f"{solver}-time", time)
    result["numpy"] = []
    for n in (9, 17, 33):
        elements = last(heat.solve(PARAMETERS, heat.Heat(COMM, n, alpha=0.1), 50))[1]
        differences = last(heat_numpy.solve(PARAMETERS, heat_numpy.HeatNumpy(n, alpha=0.1), 50))[1]
        result["numpy"].append(float(np.abs(elements - differences)[1:-1, 1:-1].max()))
    steady = last(heat.solve(PARAMETERS, heat.Heat(COMM, 17, dt=0.1), 50))[1]
    result["centre"] = float(steady[8, 8])
    return result


def fields() -> dict[str, Any]:
    """All steps of both solvers on these ranks: the last field, and a digest of every bit."""
    result: dict[str, Any] = {}
    for name in ("lu", "cg+hypre", "cg+jacobi", "nonlinear"):
        if name == "nonlinear":
            nonlinear = heat_nonlinear.HeatNonlinear(COMM, 17, rtol=1e-13)
            square, steps = nonlinear.square, heat_nonlinear.solve(PARAMETERS, nonlinear, 20)
        else:
            linear = heat.Heat(COMM, 17, ksp=name, rtol=1e-13)
            square, steps = linear.square, heat.solve(PARAMETERS, linear, 20)
        digest = hashlib.sha256()
        for _, values in steps:
            field = gather(square, values)
            digest.update(field.tobytes())
        result[name] = {"field": field.tolist(), "digest": digest.hexdigest()}
    return result


def compatibility() -> dict[str, Any]:
    """Every function of compat.py once, with a value that is known."""
    mesh = Square(COMM, 5).mesh
    scalars, vectors = compat.lagrange(mesh), compat.lagrange(mesh, 2, (2,))
    one = compat.compile_form(fem.Constant(mesh, 1.0) * ufl.dx)
    form = compat.compile_form(ufl.TestFunction(scalars) * ufl.dx, timeout=30)
    u = fem.Function(scalars)
    u.interpolate(lambda x: x[0])
    return {
        "vectors": vectors.dofmap.index_map.size_global * vectors.dofmap.index_map_bs,
        "norm": compat.petsc_vector(u).max()[1],
        "vector": compat.create_vector(form, scalars).getSize(),
        "points": list(np.shape(compat.interpolation_points(scalars))),
        "area": COMM.allreduce(fem.assemble_scalar(one)),
    }


if __name__ == "__main__":
    case = {"orders": orders, "fields": fields, "compat": compatibility}[sys.argv[1]]
    answer = case()
    if COMM.rank == 0:
        print(json.dumps(answer, default=lambda value: None if math.isnan(value) else float(value)))
