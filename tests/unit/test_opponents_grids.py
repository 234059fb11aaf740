"""Coarser solvers as opponents: the varied option, interpolation, and who is of equal error."""

from __future__ import annotations

import pytest
import torch
from campaigns import SMALL

from penstock_server.config import parse
from penstock_server.evaluation import Trajectory
from penstock_server.opponents import (
    OpponentsError,
    Vary,
    Version,
    coarser,
    describe,
    equal,
    interpolated,
)
from penstock_surrogates.problem import Field, Parameter, Problem


@pytest.mark.parametrize("text", ["n=32,8,16", "--n=8,16,32", "n=8,16,32,8"])
def test_the_values_to_try_are_in_order(text: str) -> None:
    assert Vary.parse(text) == Vary("--n", (8, 16, 32))


@pytest.mark.parametrize("text", ["n", "n=", "n=a", "=8", "n=1,8", "n=8;16"])
def test_a_text_that_is_no_grid_option_is_refused(text: str) -> None:
    with pytest.raises(OpponentsError, match="--vary expects"):
        Vary.parse(text)


def test_the_command_and_the_axes_of_its_length_follow_the_option() -> None:
    campaign = parse(
        SMALL, ['solver.command=["solver", "--n", "32"]', "fields.temperature.shape=[32, 3]"]
    )
    vary = Vary.parse("n=8")
    coarse = coarser(campaign, vary, vary.present(campaign.solver.command), 8)
    assert coarse.solver.command == ("solver", "--n", "8")
    assert coarse.fields["temperature"].shape == (8, 3)


def test_a_command_without_the_option_is_refused() -> None:
    with pytest.raises(OpponentsError, match="no option --grid"):
        Vary.parse("grid=8").present(["python", "-m", "solver", "--n", "32"])


def trajectory(values: torch.Tensor, name: str) -> Trajectory:
    k = len(values)
    return Trajectory(
        0, "test", torch.tensor([1.0]), torch.arange(k), torch.arange(k), {name: values}
    )


def test_a_field_that_is_linear_in_space_is_interpolated_exactly() -> None:
    def plane(n: int) -> torch.Tensor:
        line = torch.linspace(0, 1, n, dtype=torch.float64)
        return (2 * line[:, None] - 3 * line[None, :] + 1).expand(4, n, n)

    problem = Problem((Parameter("p", 0, 2),), {"u": Field((9, 9))})
    coarse, fine = trajectory(plane(3), "u"), trajectory(plane(9), "u")
    found = interpolated([coarse], problem)(fine)["u"]
    assert torch.allclose(found, fine.fields["u"])


def test_components_are_interpolated_each_for_itself() -> None:
    line = torch.linspace(0, 1, 3, dtype=torch.float64)
    values = torch.stack([line, -5 * line], dim=-1).expand(2, 3, 2)
    problem = Problem((Parameter("p", 0, 2),), {"u": Field((5, 2), components=2)})
    fine = trajectory(torch.zeros(2, 5, 2), "u")
    found = interpolated([trajectory(values, "u")], problem)(fine)["u"]
    assert torch.allclose(found[0, :, 1], -5 * torch.linspace(0, 1, 5, dtype=torch.float64))


def versions(*errors: float) -> list[Version]:
    return [
        Version(8 * (i + 1), ["solver"], [8 * (i + 1)], error, 0.01 * (i + 1))
        for i, error in enumerate(errors)
    ]


def test_the_coarsest_solver_that_is_good_enough_is_the_rival() -> None:
    assert equal(0.05, versions(0.2, 0.05, 0.01)) == 1
    assert equal(0.3, versions(0.2, 0.05, 0.01)) == 0
    assert equal(0.001, versions(0.2, 0.05, 0.01)) is None


def test_a_network_that_is_slower_than_its_rival_is_called_so() -> None:
    from dataclasses import asdict

    found = {
        "role": "test",
        "simulations": 4,
        "solver": {"command": [], "seconds_per_simulation": 0.5},
        "surrogate": {"nrmse": 0.1, "seconds_per_simulation": 0.04},
        "coarser": [asdict(version) for version in versions(0.1)],
        "equal": 0,
    }
    assert describe(found)[-1].endswith("8, the network is 4 times slower.")
    found["surrogate"] = {"nrmse": 0.1, "seconds_per_simulation": 0.005}
    assert describe(found)[-1].endswith("8, the network is 2 times faster.")
