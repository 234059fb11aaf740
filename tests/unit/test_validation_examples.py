"""examples.npz: which simulations, which times, how many bytes; and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from penstock_server import examples_file
from penstock_server.evaluation import Evaluation, Trajectory, evaluate
from penstock_surrogates import Field, Parameter, Problem

PROBLEM = Problem(
    (Parameter("a", 0, 1),),
    {"u": Field((6, 5, 2), unit="m/s", components=2), "q": Field((3,), components=3)},
)


def trajectories(n: int, steps: int = 50) -> list[Trajectory]:
    """Simulation i has fields of i, and steps + i steps."""

    def one(i: int) -> Trajectory:
        k = steps + i
        t = torch.linspace(0, 1, k, dtype=torch.float64)
        fields = {
            "u": t.reshape(-1, 1, 1, 1).expand(k, 6, 5, 2) + i,
            "q": t.reshape(-1, 1).expand(k, 3) + i,
        }
        parameters = torch.tensor([i / n], dtype=torch.float64)
        return Trajectory(i, "validation", parameters, t, torch.arange(k), fields)

    return [one(i) for i in range(n)]


def off(trajectory: Trajectory) -> dict[str, Tensor]:
    """Wrong by a tenth of the simulation's number."""
    return {n: values + 0.1 * trajectory.simulation for n, values in trajectory.fields.items()}


def collected(n: int, max_bytes: int = examples_file.MAX_BYTES) -> examples_file.Examples:
    given = trajectories(n)
    return examples_file.collect(PROBLEM, given, evaluation(n), off, 30, max_bytes)


def evaluation(n: int) -> Evaluation:
    return evaluate(off, PROBLEM, trajectories(n))


def test_the_median_the_95th_percentile_and_the_worst_are_chosen() -> None:
    chosen = examples_file.choose(evaluation(40))
    assert {sim: reason for sim, (reason, _) in chosen.items()} == {
        19: "median error",
        37: "95th percentile",
        39: "largest error",
    }
    errors = [error for _, error in chosen.values()]
    assert errors == sorted(errors)


def test_few_simulations_are_not_shown_twice() -> None:
    assert [reason for reason, _ in examples_file.choose(evaluation(1)).values()] == [
        "median error and 95th percentile and largest error"
    ]


def test_truth_and_prediction_come_back_as_they_were(tmp_path: Path) -> None:
    examples = collected(4)
    examples_file.write(tmp_path / "examples.npz", examples)
    again = examples_file.read(tmp_path / "examples.npz")
    assert again.batch == 30
    assert again.names == ("a",)
    assert again.fields["u"] == {"unit": "m/s", "components": 2, "shape": [6, 5, 2], "stride": 1}
    assert again.truth["u"].shape == (2, 4, 6, 5, 2)
    assert again.truth["u"].dtype == np.float32
    assert list(again.simulation) == [1, 3]
    for i, simulation in enumerate(again.simulation):
        error = again.prediction["u"][i] - again.truth["u"][i]
        assert error == pytest.approx(0.1 * simulation, abs=1e-5)
        expected = again.t[i].reshape(-1, 1, 1, 1) + simulation
        assert np.allclose(again.truth["u"][i], expected)
    assert again.t[0, -1] == 1.0
    assert list(again.step[1]) == [4, 20, 36, 52]


def test_a_field_without_a_grid_is_kept_as_a_curve(tmp_path: Path) -> None:
    examples_file.write(tmp_path / "examples.npz", collected(4))
    again = examples_file.read(tmp_path / "examples.npz")
    assert set(again.curve_truth) == {"q"}
    assert again.curve_t is not None
    assert again.curve_truth["q"].shape == (2, 53, 3)
    assert np.isnan(again.curve_t[0, 51:]).all(), "the shorter one ends earlier"
    assert np.isfinite(again.curve_t[1]).all()


def test_large_fields_are_thinned_and_it_is_said(tmp_path: Path) -> None:
    examples = collected(4, max_bytes=1_000)
    assert examples.fields["u"]["stride"] == 3
    assert examples.fields["q"]["stride"] == 1
    assert examples.truth["u"].shape == (2, 4, 2, 2, 2)
    assert examples.truth["u"].nbytes + examples.prediction["u"].nbytes <= 1_000


def test_the_file_needs_no_pickle_and_says_its_format(tmp_path: Path) -> None:
    examples_file.write(tmp_path / "examples.npz", collected(2))
    assert not list(tmp_path.glob("*.part"))
    with np.load(tmp_path / "examples.npz", allow_pickle=False) as file:
        assert str(file["format"]) == "penstock-examples-1"
        assert all(file[name].dtype != object for name in file.files)


def test_a_file_without_a_field_that_it_names_is_damaged(tmp_path: Path) -> None:
    examples_file.write(tmp_path / "examples.npz", collected(2))
    with np.load(tmp_path / "examples.npz") as file:
        arrays = {name: file[name] for name in file.files if name != "prediction/u"}
    np.savez(tmp_path / "torn.npz", **arrays)
    with pytest.raises(examples_file.ExamplesError, match=r"torn\.npz is damaged"):
        examples_file.read(tmp_path / "torn.npz")
