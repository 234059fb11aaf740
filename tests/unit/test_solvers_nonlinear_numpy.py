"""The nonlinear heat solver on numpy against exact solutions, and the pace of the numpy solvers."""

from __future__ import annotations

import argparse
import itertools
import math
from typing import Any

import numpy as np
import pytest

from penstock_solvers import exact, heat_nonlinear_numpy, heat_numpy
from penstock_solvers.heat_data import TEMPERATURES, Diverged, square_nodes
from penstock_solvers.heat_nonlinear_numpy import HeatNonlinearNumpy
from penstock_solvers.pace import Pace

pytestmark = pytest.mark.timeout(60)

PARAMETERS = {"alpha": 0.2, "T0": 150.0, "T1": 480.0, "T2": 120.0, "T3": 333.0, "T4": 222.0}
BETA = 0.005


def last(steps: Any) -> Any:
    *_, result = steps
    return result


def observed_orders(errors: list[float]) -> list[float]:
    return [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]


def error(n: int, dt: float, steps: int, data: Any) -> float:
    t, field = last(HeatNonlinearNumpy(n, dt, BETA).march(data, steps, alpha=0.7))
    return float(np.abs(field - data.value(*square_nodes(n), t)).max())


def test_it_is_of_second_order_in_space() -> None:
    # In w the time derivative of the solution is not linear, so dt has to be small beside h^2.
    errors = [error(n, 1e-4, 20, exact.linear_in_time(0.7, BETA)) for n in (9, 17, 33)]
    assert observed_orders(errors) == pytest.approx([2.0, 2.0], abs=0.15)


def test_it_is_of_first_order_in_time() -> None:
    # Second differences of w = u + beta u^2 / 2 are exact for a u that is linear in space.
    sizes = [(0.1, 5), (0.05, 10), (0.025, 20)]
    errors = [error(9, dt, steps, exact.linear_in_space(0.7, BETA)) for dt, steps in sizes]
    assert observed_orders(errors) == pytest.approx([1.0, 1.0], abs=0.1)


def test_with_hardly_any_growth_it_is_the_linear_solver() -> None:
    setup, linear = HeatNonlinearNumpy(17, beta=1e-7), heat_numpy.HeatNumpy(17, alpha=0.2)
    for (_, u), (_, v) in zip(
        heat_nonlinear_numpy.solve(PARAMETERS, setup, 10),
        heat_numpy.solve(PARAMETERS, linear, 10),
        strict=True,
    ):
        assert np.abs(u - v).max() < 0.02


def test_the_steady_centre_is_that_of_the_kirchhoff_variable() -> None:
    setup = HeatNonlinearNumpy(17, dt=1.0, beta=BETA)
    _, field = last(heat_nonlinear_numpy.solve(PARAMETERS, setup, 60))
    sides = np.array([PARAMETERS[name] for name in ("T1", "T2", "T3", "T4")])
    centre = setup.temperature(setup.kirchhoff(sides).mean())  # laplace(w) = 0: the mean of w
    assert field[8, 8] == pytest.approx(float(centre), abs=1e-4)


def test_a_step_of_any_length_ends_at_rounding() -> None:
    # dt / h^2 = 6.4e8: no residual gets down to TOLERANCE_K, and the field is the steady one.
    setup = HeatNonlinearNumpy(9, dt=1e7, beta=BETA)
    _, field = last(heat_nonlinear_numpy.solve({**PARAMETERS, "alpha": 1.0}, setup, 2))
    sides = np.array([PARAMETERS[name] for name in ("T1", "T2", "T3", "T4")])
    centre = setup.temperature(setup.kirchhoff(sides).mean())
    assert field[4, 4] == pytest.approx(float(centre), abs=1e-6)


@pytest.mark.parametrize("alpha", [0.01, 1.0])
def test_temperatures_stay_between_the_extremes_of_their_data(alpha: float) -> None:
    setup = HeatNonlinearNumpy(33)
    for _, field in heat_nonlinear_numpy.solve({**PARAMETERS, "alpha": alpha}, setup, 20):
        assert field.min() >= 120.0 - 1e-6
        assert field.max() <= 480.0 + 1e-6


def test_a_repeated_simulation_has_the_same_bits() -> None:
    setup = HeatNonlinearNumpy(17)
    twice = [[u for _, u in heat_nonlinear_numpy.solve(PARAMETERS, setup, 5)] for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*twice, strict=True))


def test_a_solve_that_fails_says_so() -> None:
    setup = HeatNonlinearNumpy(9)
    with pytest.raises(Diverged, match="Newton's method did not reach 1e-06 K in step 1"):
        last(heat_nonlinear_numpy.solve({**PARAMETERS, "T0": math.nan}, setup, 1))


def test_steps_of_one_end_of_the_box_rest_longer() -> None:
    parser = argparse.ArgumentParser()
    Pace.add_options(parser)
    pace = Pace.of(parser.parse_args(["--pause", "2", "--spread", "10"]), TEMPERATURES)
    found = [pace.seconds({"T0": t}) for t in (100.0, 300.0, 500.0)]
    assert found == pytest.approx([0.002, 0.002 * math.sqrt(10), 0.02])
    with pytest.raises(ValueError, match="must not be negative"):
        Pace.of(parser.parse_args(["--pause", "-1"]), TEMPERATURES)
