"""Evaluation and Validator on a problem whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from penstock_server.best import Best
from penstock_server.evaluation import Opponents, Trajectory, evaluate, network
from penstock_server.validator import Validator
from penstock_surrogates import (
    Batch,
    Field,
    Moments,
    Normalisation,
    Parameter,
    Problem,
    build,
    load,
    save,
)

torch.set_num_threads(1)
STEPS = 5
PROBLEM = Problem(
    (Parameter("a", 0, 1), Parameter("b", -1, 1)),
    {"u": Field((3, 3), unit="K"), "q": Field((), role="quantity")},
    t_range=(0.0, 1.0),
)
TIMES = torch.linspace(0, 1, STEPS, dtype=torch.float64)


def solve(parameters: Tensor) -> dict[str, Tensor]:
    """(p,) -> name -> (STEPS, *shape); linear in the parameters at every step."""
    a, b = parameters.tolist()
    pattern = torch.arange(9, dtype=torch.float64).reshape(3, 3)
    u = a * TIMES.reshape(-1, 1, 1) * pattern + b * pattern.flip(0) + 7
    return {"u": u, "q": a - b * TIMES}


def draw(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(n, 2, dtype=torch.float64, generator=generator)
    return u * torch.tensor([1.0, 2.0]) - torch.tensor([0.0, 1.0])


def held_out(role: str, n: int, seed: int) -> list[Trajectory]:
    return [
        Trajectory(100 * seed + i, role, p, TIMES, torch.arange(STEPS), solve(p))
        for i, p in enumerate(draw(n, seed))
    ]


class Held:
    """Trajectories that have arrived."""

    def __init__(self, *arrived: Trajectory) -> None:
        self.arrived = list(arrived)

    def trajectories(self, role: str) -> list[Trajectory]:
        return [trajectory for trajectory in self.arrived if trajectory.role == role]


class Stream:
    """Training simulations, one a peek."""

    def __init__(self, n: int, seed: int = 9) -> None:
        self.left = list(draw(n, seed))

    def new_samples(self, max_samples: int) -> Batch | None:
        if not self.left:
            return None
        p = self.left.pop(0)
        return Batch(
            parameters=p.expand(STEPS, 2),
            t=TIMES.reshape(-1, 1),
            fields={name: values.unsqueeze(1) for name, values in solve(p).items()},
            simulation=torch.zeros(STEPS, dtype=torch.int64),
            step=torch.arange(STEPS).reshape(-1, 1),
        )


def a_model(folder: Path, batches: int = 30) -> Path:
    torch.manual_seed(0)
    fields = [solve(p) for p in draw(10, 5)]
    counted = {name: Moments.of(torch.stack([f[name] for f in fields])) for name in PROBLEM.fields}
    normalisation = Normalisation.from_moments(PROBLEM, counted)
    options = {"hidden": [8]}
    model = build("mlp", PROBLEM, options)
    save(folder, model, PROBLEM, normalisation, options, about={"batches": batches})
    return folder


def test_a_perfect_prediction_has_no_error_and_the_truth_is_compared_field_by_field() -> None:
    trajectories = held_out("validation", 4, seed=1)
    perfect = evaluate(lambda trajectory: trajectory.fields, PROBLEM, trajectories)
    assert perfect.value == 0
    assert perfect.simulations == 4

    def off_by_two(trajectory: Trajectory) -> dict[str, Tensor]:
        return {**trajectory.fields, "u": trajectory.fields["u"] + 2}

    shifted = evaluate(off_by_two, PROBLEM, trajectories)
    assert shifted.per_field["q"].mse == 0
    assert shifted.per_field["u"].rmse == pytest.approx(2)
    expected = shifted.per_field["u"].nrmse / 2**0.5  # root mean square over two fields
    assert shifted.value == pytest.approx(expected)
    assert set(shifted.summary()["per_field"]["u"]) >= {"mse", "rmse", "nrmse", "p50", "p95", "max"}
    assert len(json.loads(json.dumps(shifted.to_dict()))["per_field"]["u"]["nrmse_over_t"]) == STEPS


def test_the_network_is_evaluated_as_its_user_would_call_it(tmp_path: Path) -> None:
    surrogate = load(a_model(tmp_path))
    predict = network(surrogate.model, surrogate.normalisation, PROBLEM)
    (trajectory,) = held_out("validation", 1, seed=1)
    a, b = trajectory.parameters.tolist()
    expected = surrogate.predict({"a": a, "b": b}, t=TIMES)
    for name, values in predict(trajectory).items():
        assert torch.equal(values, expected[name])


def test_the_opponents_are_fitted_on_the_stream_alone() -> None:
    trajectories = held_out("validation", 6, seed=1)
    opponents = Opponents(PROBLEM, STEPS)
    assert opponents.constant(trajectories) is None
    assert opponents.linear(trajectories) is None
    stream = Stream(20)
    while (batch := stream.new_samples(100)) is not None:
        opponents.update(batch)
    linear, constant = opponents.linear(trajectories), opponents.constant(trajectories)
    assert linear is not None
    assert linear.evaluation.value < 1e-10
    assert constant is not None
    assert constant.kind == "mean field per step"
    assert 0.3 < constant.evaluation.value < 1.5
    assert opponents.samples == 20 * STEPS
    assert opponents.choose_ridge(trajectories) == 0
    assert opponents.choose_ridge([]) == 0


def test_a_report_has_the_error_beside_those_of_the_opponents(tmp_path: Path) -> None:
    model = a_model(tmp_path / "model")
    held = Held()
    validator = Validator(PROBLEM, STEPS, held, Stream(20), 1 << 20, Best(tmp_path / "best"))
    assert validator.check(model, 10) is None, "no simulation has arrived yet"
    held.arrived = held_out("validation", 3, seed=1) + held_out("test", 2, seed=2)
    before = validator.check(model, 20)
    assert before is not None
    assert before["baseline"] is None
    assert before["linear"] is None
    assert validator.fit() is False
    report = validator.check(model, 30)
    assert report is not None
    assert json.dumps(report)
    assert report["metric"] == "nrmse"
    assert report["final"] is False
    assert report["batch"] == 30
    assert report["linear"] < 1e-10 < report["baseline"]
    assert report["value"] > report["linear"], "an untrained network"
    assert report["best"] == {"batch": 20, "value": report["value"]}
    assert report["simulations"] == 3
    assert "test" not in report
    assert load(tmp_path / "best").about["batches"] == 30
    assert validator.best.standing is not None
    assert validator.best.standing.simulations == 3


def test_the_test_simulations_enter_the_final_report_only(tmp_path: Path) -> None:
    held = Held(*held_out("validation", 3, seed=1), *held_out("test", 2, seed=2))
    validator = Validator(PROBLEM, STEPS, held, Stream(20), 1 << 20, Best(tmp_path / "best"))
    final = validator.finish(a_model(tmp_path / "model"))
    assert final.report["batch"] == 30
    assert final.report["final"] is True
    assert final.report["test"]["simulations"] == 2
    assert final.report["opponent_samples"] == 20 * STEPS
    assert set(final.compared) == {"validation", "test"}
    assert len(final.shown) == 3
    assert final.best["validation"].value == final.report["value"]
    assert final.report["best"]["test"] == final.report["test"]["value"]


def test_a_campaign_without_held_out_simulations_still_ends(tmp_path: Path) -> None:
    validator = Validator(PROBLEM, STEPS, Held(), Stream(2), 1 << 20, Best(tmp_path / "best"))
    final = validator.finish(a_model(tmp_path / "model"))
    assert final.report["value"] is None
    assert final.report["best"] is None
    assert final.compared == {}
    assert final.shown == []
    assert not (tmp_path / "best").exists()
