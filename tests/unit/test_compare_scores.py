"""Errors on stored simulations: a network and its opponents on a data set made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from penstock_server.compare.errors import CompareError
from penstock_server.compare.scores import Stored, StoredScores, evaluate_on
from penstock_server.data_file import DataFile, DataLayout
from penstock_server.dataset import DataSet
from penstock_surrogates import Field, Normalisation, Parameter, Problem, build, save
from penstock_surrogates.normalisation import Scale

STEPS, CELLS = 3, 4
PROBLEM = Problem((Parameter("a", 0.0, 1.0),), {"u": Field((CELLS,))}, t_range=(1.0, 3.0))
ROLES = {"validation": [0.2, 0.7], "test": [0.4, 0.6, 0.9], "train": [0.0, 0.25, 0.5, 1.0]}


def field(a: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Linear in a: u(t, x) = t (1 + a x), (steps, cells)."""
    t, x = np.arange(1, STEPS + 1)[:, None], np.arange(CELLS)[None, :]
    return (t * (1 + a * x)).astype(np.float32)


def write(path: Path, incomplete: float | None = None, same_ids: bool = False) -> Path:
    about = {"shape": [CELLS], "dtype": "float32", "role": "state", "unit": "K", "components": 1}
    rows = {role: len(points) for role, points in ROLES.items()}
    file = DataFile(path, DataLayout("c", "r", "", ["a"], rows, STEPS, {"u": about}, {}))
    number = 0
    for role, points in ROLES.items():
        for at, a in enumerate(points):
            simulation = at if same_ids else number
            number += 1
            row = file.row(role, simulation, np.array([a]))
            assert row is not None
            n = 1 if a == incomplete else STEPS
            t = np.arange(1, n + 1, dtype=np.float64)
            file.put(role, row, 0, t, {"u": field(a)[:n]}, {})
            file.end(role, simulation, STEPS)
    file.close()
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "data.h5")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network that says 3 everywhere."""
    options = {"hidden": [1]}
    network = build("mlp", PROBLEM, options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    scales = {"u": Scale((3.0,), (1.0,))}
    constants = Normalisation(PROBLEM.parameters, (1.0, 3.0), scales)
    save(tmp_path / "model", network, PROBLEM, constants, options)
    return tmp_path / "model"


def points(role: str) -> list[dict[str, float]]:
    return [{"a": a} for a in ROLES[role]]


@pytest.mark.parametrize("role", ["validation", "test"])
def test_the_error_is_that_of_this_role_alone(data: Path, model: Path, role: str) -> None:
    truth = np.stack([field(a) for a in ROLES[role]]).astype(np.float64)
    found = evaluate_on(model, DataSet(data), role)
    assert found.simulations == len(ROLES[role])
    assert found.per_field["u"].mse == pytest.approx(((truth - 3) ** 2).mean(), rel=1e-5)
    expected = np.sqrt(((truth - 3) ** 2).mean() / truth.var())
    assert found.value == pytest.approx(expected, rel=1e-5)
    scores = StoredScores()
    if role == "test":
        assert scores.test(data, model)["value"] == found.value
    else:
        assert scores.validation(data, model) == found.value


def test_opponents_learn_from_the_given_simulations_and_are_judged_on_test(
    data: Path, model: Path
) -> None:
    scores = StoredScores()
    one, two = (scores.opponents(data, model, points("train")[:n]) for n in (1, 4))
    assert two["linear"]["value"] < 1e-5 < one["linear"]["value"]  # two simulations determine it
    truth = np.stack([field(a) for a in ROLES["test"]]).astype(np.float64)
    mean = np.mean([field(a) for a in ROLES["train"]], axis=0, dtype=np.float64)
    assert two["constant"]["per_field"]["u"]["mse"] == pytest.approx(
        ((truth - mean) ** 2).mean(), rel=1e-5
    )


def test_simulations_count_up_to_the_first_that_is_incomplete(tmp_path: Path) -> None:
    path = write(tmp_path / "data.h5", incomplete=0.5)
    assert StoredScores().complete(path, points("train")) == 2
    assert StoredScores().complete(path, points("train")[:2]) == 2


def test_a_simulation_of_two_roles_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "data.h5", same_ids=True)
    with pytest.raises(CompareError, match="test and train at once: 0, 1, 2"):
        StoredScores().complete(path, points("train"))


def test_simulations_are_read_one_at_a_time(data: Path) -> None:
    stored = Stored(DataSet(data), "test")
    assert [float(trajectory.parameters[0]) for trajectory in stored] == ROLES["test"]
    assert [t.simulation for t in stored[1:]] == [3, 4]
    assert stored[0].fields["u"].shape == (STEPS, CELLS)


def test_a_data_set_without_the_role_is_named(data: Path, model: Path) -> None:
    with pytest.raises(CompareError, match="no complete gone simulation"):
        evaluate_on(model, DataSet(data), "gone")
