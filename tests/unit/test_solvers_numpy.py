"""The solvers without finite elements against exact solutions, and the data that all share."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from penstock_solvers import command, exact, heat_numpy, lorenz
from penstock_solvers.heat_data import TEMPERATURES, five_temperatures, square_nodes

pytestmark = pytest.mark.timeout(30)

PARAMETERS = {"T0": 150.0, "T1": 480.0, "T2": 120.0, "T3": 333.0, "T4": 222.0}


def last(steps: Any) -> Any:
    *_, result = steps
    return result


def observed_orders(errors: list[float]) -> list[float]:
    return [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]


def error(n: int, dt: float, steps: int, data: Any) -> float:
    setup = heat_numpy.HeatNumpy(n, dt, alpha=0.7)
    t, field = last(setup.march(data, steps))
    return float(np.abs(field - data.value(*square_nodes(n), t)).max())


def test_heat_numpy_is_of_second_order_in_space() -> None:
    errors = [error(n, 0.02, 10, exact.linear_in_time(0.7)) for n in (9, 17, 33)]
    assert observed_orders(errors) == pytest.approx([2.0, 2.0], abs=0.1)


def test_heat_numpy_is_of_first_order_in_time() -> None:
    sizes = [(0.1, 5), (0.05, 10), (0.025, 20)]
    errors = [error(5, dt, steps, exact.linear_in_space(0.7)) for dt, steps in sizes]
    assert observed_orders(errors) == pytest.approx([1.0, 1.0], abs=0.1)


def test_a_mode_decays_as_the_equation_says() -> None:
    data = exact.decaying_mode(alpha=1.0)
    t, field = last(heat_numpy.HeatNumpy(65, 1e-4).march(data, 500))
    assert field[32, 32] == pytest.approx(math.exp(-2 * math.pi**2 * t), rel=2e-3)


def test_the_steady_centre_is_the_mean_of_the_four_sides() -> None:
    _, field = last(heat_numpy.solve(PARAMETERS, heat_numpy.HeatNumpy(17, dt=0.1), 50))
    assert field[8, 8] == pytest.approx(exact.steady_centre(PARAMETERS), rel=1e-9)


def test_each_side_has_its_temperature_and_corners_the_mean_of_two() -> None:
    setup = heat_numpy.HeatNumpy(9)
    for step, (_, field) in enumerate(heat_numpy.solve(PARAMETERS, setup, 3)):
        assert np.all(field[1:-1, 0] == 480.0), f"left, step {step}"
        assert np.all(field[1:-1, -1] == 120.0), f"right, step {step}"
        assert np.all(field[0, 1:-1] == 333.0), f"bottom, step {step}"
        assert np.all(field[-1, 1:-1] == 222.0), f"top, step {step}"
        assert field[0, 0] == (480.0 + 333.0) / 2
        assert field[-1, -1] == (120.0 + 222.0) / 2


def test_temperatures_stay_between_the_extremes_of_their_data() -> None:
    for _, field in heat_numpy.solve(PARAMETERS, heat_numpy.HeatNumpy(33), 20):
        assert field.min() >= 120.0
        assert field.max() <= 480.0


def test_the_steps_of_a_solve_are_separate_arrays() -> None:
    fields = [field for _, field in heat_numpy.solve(PARAMETERS, heat_numpy.HeatNumpy(9), 3)]
    assert not np.array_equal(fields[0], fields[1])
    assert not np.shares_memory(fields[1], fields[2])


def test_a_grid_without_inner_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="At least 3 x 3 nodes"):
        heat_numpy.HeatNumpy(2)


def test_the_initial_temperature_is_inside_only() -> None:
    field = five_temperatures(PARAMETERS).value(*square_nodes(5), 0.0)
    assert np.all(field[1:-1, 1:-1] == 150.0)
    assert np.count_nonzero(field == 150.0) == 9


def test_lorenz_is_of_fourth_order() -> None:
    parameters = {"x0": 1.0, "y0": -2.0, "z0": 20.0, "rho": 28.0}
    steps = (40, 80, 160)
    reference = last(lorenz.solve(parameters, 2560, 0.4 / 2560))[1]
    ends = [last(lorenz.solve(parameters, k, 0.4 / k))[1] for k in steps]
    errors = [float(np.abs(end - reference).max()) for end in ends]
    assert observed_orders(errors) == pytest.approx([4.0, 4.0], abs=0.2)


def test_lorenz_stays_on_its_axis() -> None:
    parameters = {"x0": 0.0, "y0": 0.0, "z0": 30.0, "rho": 28.0}
    for t, state in lorenz.solve(parameters, 100, 0.01):
        assert state == pytest.approx(exact.lorenz_axis(30.0, t), rel=1e-7)


def test_parameters_default_to_the_middle_of_the_box_and_can_be_given() -> None:
    box = {"alpha": (0.01, 1.0), **TEMPERATURES}
    parser = command.parser("a solver", box, logarithmic=("alpha",))
    given = command.parameters(parser.parse_args(["--T3", "111"]), box)
    assert given == pytest.approx(
        {"alpha": 0.1, "T0": 300.0, "T1": 300.0, "T2": 300.0, "T3": 111.0, "T4": 300.0}
    )
