"""The nonlinear heat equation by elements and by differences; test_solvers_agree.py calls it.

Runs under the solver interpreter and prints one line of JSON: for each grid the largest difference
in K at the inner nodes of the coarsest grid, and on the whole grid.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from mpi4py import MPI

from penstock_solvers import heat_nonlinear, heat_nonlinear_numpy

PARAMETERS = {"T0": 150.0, "T1": 480.0, "T2": 120.0, "T3": 333.0, "T4": 222.0, "alpha": 0.1}
GRIDS = (9, 17, 33)
STEPS = 50


def last(steps: Iterator[tuple[float, Any]]) -> Any:
    """The last field of a solve."""
    *_, (_, field) = steps
    return np.asarray(field)


def difference(n: int) -> tuple[float, float]:
    """At the nodes that all grids have, and everywhere."""
    elements = heat_nonlinear.HeatNonlinear(MPI.COMM_SELF, n)
    differences = heat_nonlinear_numpy.HeatNonlinearNumpy(n)
    a = last(heat_nonlinear.solve(PARAMETERS, elements, STEPS)).reshape(n, n)
    b = last(heat_nonlinear_numpy.solve(PARAMETERS, differences, STEPS))
    wrong = np.abs(a - b)
    every = (n - 1) // (GRIDS[0] - 1)
    return float(wrong[::every, ::every].max()), float(wrong.max())


if __name__ == "__main__":
    print(json.dumps([difference(n) for n in GRIDS]))
