"""MPI heat solvers in C++ and Fortran train the surrogate that the Python one trains.

A whole campaign each; they differ in the solver's command, and in its ranks: heat_numpy has one
process, the others two where there is an mpirun. When training runs beside production, the order of
arrival decides what is drawn, and two runs of one solver differ. Here one worker, a threshold that
only the whole stream reaches, and an end after a number of batches let the draws follow from the
seed: the batches are demanded to be the same, and so nearly the same weights.

The solvers differ by 1e-12 (conjugate gradients against sines) before their values become float32.
Weights came out with the same bits; a value that is rounded the other way would alter them by 1e-6,
as a diffusivity off by 1e-7 does. One that is off by 0.01 alters them by 2e-2, and the error on the
Python solver's simulations by 3e-3.

`make test-conformance` compiles the solvers and runs this; elsewhere it is skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from whole import Run

from penstock_server.dataset import DataSet
from penstock_server.draw_log import Draws, draw_log_path, read_draws
from penstock_server.evaluation import Trajectory, evaluate, network
from penstock_server.interpreters import find_starter
from penstock_surrogates import TrainedSurrogate, load

CLIENTS = os.environ.get("PENSTOCK_CLIENTS")  # the folder with the compiled solvers
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),  # the campaigns are made for the first test that needs them
    pytest.mark.skipif(CLIENTS is None, reason="make test-conformance compiles the solvers"),
]

N, STEPS, TRAIN, VALIDATION, BATCHES = 16, 20, 64, 16, 1500
FIELDS = 1e-6  # allowed difference, relative to the largest value; float32 resolves 6e-8
WEIGHTS = 1e-4  # relative, all weights as one vector
ERRORS = 1e-4  # relative
OTHERS = ("cpp", "fortran")


@dataclass(frozen=True)
class Outcome:
    """What a campaign left."""

    summary: Mapping[str, Any]
    draws: Draws  # every sample of every batch, with a checksum of its parameters
    held_out: list[Trajectory]
    surrogate: TrainedSurrogate

    @property
    def error(self) -> float:
        """The validator's figure: nRMSE on the campaign's own held-out simulations."""
        return float(self.summary["validation"]["value"])

    def error_on(self, held_out: list[Trajectory]) -> float:
        """nRMSE of its network on these simulations."""
        found = self.surrogate
        predict = network(found.model, found.normalisation, found.problem)
        return evaluate(predict, found.problem, held_out).value

    @property
    def weights(self) -> torch.Tensor:
        return torch.cat([each.detach().flatten() for each in self.surrogate.model.parameters()])


def campaign(command: list[str], ranks: int) -> str:
    """The campaign file: all but the solver is the same for everyone."""
    return f"""
name = "same"
seed = 7
keep = "held-out"
[solver]
command = {json.dumps(command)}
mpi_ranks = {ranks}
steps = {STEPS}
[design]
simulations = {TRAIN}
validation = {VALIDATION}
[design.parameters]
T0 = {{ low = 100, high = 500 }}
T1 = {{ low = 100, high = 500 }}
T2 = {{ low = 100, high = 500 }}
T3 = {{ low = 100, high = 500 }}
T4 = {{ low = 100, high = 500 }}
[fields.temperature]
shape = [{N}, {N}]
unit = "K"
[reservoir]
capacity = {TRAIN * STEPS + 64}
threshold = {TRAIN * STEPS}
[training]
options = {{ hidden = [64, 64] }}
batch_size = 16
learning_rate = 3e-3
schedule = "cosine"
[stop]
batches = {BATCHES}
"""


def trained(folder: Path, program: str, *options: str) -> Outcome:
    """Runs a campaign to its end; program: below the folder of the clients, or python."""
    starter = find_starter()
    if program == "python":
        command, ranks = ["{python}", "-m", "penstock_solvers.heat_numpy"], 1
    else:
        command, ranks = [str(Path(CLIENTS or "") / program)], 1 if starter is None else 2
    command += ["--n", str(N), "--steps", str(STEPS), *options]
    path = folder / "same.toml"
    path.write_text(campaign(command, ranks))
    run = Run(path)
    try:
        assert run.finish() == 0, run.output
    finally:
        run.stop()
    return Outcome(
        summary=run.summary,
        draws=np.array(read_draws(draw_log_path(run.folder, 0))),
        held_out=DataSet(run.folder / "data.h5").trajectories("validation"),
        surrogate=load(run.folder / "model"),
    )


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    programs = {"python": "python", "cpp": "heat_mpi_cpp", "fortran": "fortran/heat_mpi"}
    return {name: trained(tmp_path_factory.mktemp(name), programs[name]) for name in programs}


@pytest.mark.parametrize("solver", ["python", *OTHERS])
def test_every_simulation_arrives_and_teaches(outcomes: dict[str, Outcome], solver: str) -> None:
    found = outcomes[solver]
    assert found.summary["simulations"]["completed"] == TRAIN + VALIDATION
    assert found.summary["samples"]["trained_unique"] == TRAIN * STEPS
    assert found.summary["batches"] == BATCHES
    assert len(found.held_out) == VALIDATION
    assert found.error == pytest.approx(found.error_on(found.held_out))
    assert found.error < 0.25 * found.summary["validation"]["baseline"]


@pytest.mark.parametrize("solver", OTHERS)
def test_the_simulations_and_the_batches_are_the_same(
    outcomes: dict[str, Outcome], solver: str
) -> None:
    python, other = outcomes["python"], outcomes[solver]
    check_design(python, other)
    for ours, theirs in zip(python.held_out, other.held_out, strict=True):
        expected, found = ours.fields["temperature"], theirs.fields["temperature"]
        assert float((found - expected).abs().max() / expected.abs().max()) < FIELDS


@pytest.mark.parametrize("solver", OTHERS)
def test_the_surrogates_are_the_same(outcomes: dict[str, Outcome], solver: str) -> None:
    check_weights(outcomes["python"], outcomes[solver])
    check_errors(outcomes["python"], outcomes[solver])


@pytest.mark.parametrize("solver", OTHERS)
def test_a_surrogate_is_as_good_on_the_python_solvers_simulations(
    outcomes: dict[str, Outcome], solver: str
) -> None:
    check_crossed(outcomes["python"], outcomes[solver])


def test_a_solver_with_another_diffusivity_is_noticed(
    outcomes: dict[str, Outcome], tmp_path: Path
) -> None:
    python, wrong = outcomes["python"], trained(tmp_path, "heat_mpi_c", "--alpha", "1.01")
    check_design(python, wrong)
    for check in (check_weights, check_crossed):
        with pytest.raises(AssertionError):
            check(python, wrong)


def check_design(python: Outcome, other: Outcome) -> None:
    """The same inputs to the bit, and the same steps of the same simulations in each batch."""
    assert np.array_equal(python.draws, other.draws)
    for ours, theirs in zip(python.held_out, other.held_out, strict=True):
        assert ours.simulation == theirs.simulation
        assert torch.equal(ours.parameters, theirs.parameters)
        assert torch.equal(ours.t, theirs.t)


def check_weights(python: Outcome, other: Outcome) -> None:
    difference = (other.weights - python.weights).norm() / python.weights.norm()
    assert float(difference) < WEIGHTS


def check_errors(python: Outcome, other: Outcome) -> None:
    assert other.error == pytest.approx(python.error, rel=ERRORS)


def check_crossed(python: Outcome, other: Outcome) -> None:
    """What was learnt from the other solver holds for the fields of the Python one."""
    crossed = other.error_on(python.held_out)
    assert crossed == pytest.approx(other.error, rel=ERRORS)
