"""Errors of a surrogate and of its opponents on held-out simulations; the validator calls it.

Pure: trajectories and predictions in, figures out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from penstock_surrogates import (
    Batch,
    ConstantEmulator,
    ErrorCount,
    FieldErrors,
    LinearEmulator,
    Moments,
    Normalisation,
    Problem,
)
from penstock_surrogates import predict as predict_batch
from penstock_surrogates.errors import combine

METRIC = "nrmse"
RIDGES = (0.0, 1e-8, 1e-6, 1e-4, 1e-2, 1e-1)  # that the final linear emulator may choose from


@dataclass(frozen=True)
class Trajectory:
    """One complete held-out simulation, in physical units."""

    simulation: int
    role: str  # "validation" or "test"
    parameters: Tensor  # (p,), in the order of the problem
    t: Tensor  # (k,)
    step: Tensor  # (k,) int64
    fields: dict[str, Tensor]  # name -> (k, *shape)
    inputs: dict[str, Tensor] = field(default_factory=dict)  # name -> (*shape)


Predictor = Callable[[Trajectory], dict[str, Tensor]]  # name -> (k, *shape), physical


@dataclass(frozen=True)
class Evaluation:
    """Errors over a held-out set; `value` is the nRMSE, its root mean square over the fields."""

    value: float
    per_field: dict[str, FieldErrors]
    simulations: int

    def summary(self) -> dict[str, Any]:
        """What a report takes: without the curves over t and the list of simulations."""
        return {
            "metric": METRIC,
            "value": self.value,
            "simulations": self.simulations,
            "per_field": {
                name: {
                    key: getattr(errors, key)
                    for key in ("mse", "rmse", "nrmse", "spread", "p50", "p95", "max")
                }
                for name, errors in self.per_field.items()
            },
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        full = {name: errors.to_dict() for name, errors in self.per_field.items()}
        return {**self.summary(), "per_field": full}


def evaluate(
    predict: Predictor, problem: Problem, trajectories: Sequence[Trajectory]
) -> Evaluation:
    """Compare a prediction with every trajectory. Raises ValueError without any."""
    counts = {}
    for name, spec in problem.fields.items():
        truth = Moments.none(spec.components)
        for trajectory in trajectories:
            truth = truth + Moments.of(trajectory.fields[name], spec.components)
        counts[name] = ErrorCount(truth)
    for trajectory in trajectories:
        predicted = predict(trajectory)
        for name, count in counts.items():
            count.add(
                trajectory.simulation,
                trajectory.step,
                trajectory.t,
                trajectory.fields[name],
                predicted[name],
            )
    per_field = {name: count.result() for name, count in counts.items()}
    return Evaluation(combine(per_field), per_field, len(trajectories))


def network(model: nn.Module, normalisation: Normalisation, problem: Problem) -> Predictor:
    """The surrogate's predictions."""
    device = normalisation.low.device

    def predict(trajectory: Trajectory) -> dict[str, Tensor]:
        fields = predict_batch(
            model,
            normalisation,
            problem,
            trajectory.parameters.unsqueeze(0).to(device),
            trajectory.t.unsqueeze(0).to(device),
            {name: values.unsqueeze(0).to(device) for name, values in trajectory.inputs.items()},
        )
        return {name: values[0] for name, values in fields.items()}

    return predict


@dataclass(frozen=True)
class Opponent:
    """An opponent's errors on the same simulations, and what exactly it was."""

    kind: str
    evaluation: Evaluation


class Opponents:
    """The best constant and the linear emulator, fitted on the training stream only."""

    def __init__(self, problem: Problem, steps: int, max_bytes: int = 256 << 20) -> None:
        """`steps`: most steps of a simulation; `max_bytes` bounds each of the two."""
        self.problem = problem
        self.samples = 0
        self._constant = ConstantEmulator(problem, steps, max_bytes)
        self._linear = LinearEmulator(problem, steps, max_bytes)

    def update(self, batch: Batch) -> None:
        """Add training samples, each once."""
        self.samples += len(batch)
        self._constant.update(batch.step, batch.fields)
        self._linear.update(batch.parameters, batch.step, batch.fields)

    def constant(self, trajectories: Sequence[Trajectory]) -> Opponent | None:
        """The stronger of the two constants on these simulations; None before any sample."""
        if self.samples == 0:
            return None

        def predictor(per_step: bool) -> Predictor:
            return lambda trajectory: self._constant.predict(trajectory.step, per_step)

        kinds = {"mean field over all steps": False}
        if self._constant.per_step:
            kinds["mean field per step"] = True
        found = [
            Opponent(kind, evaluate(predictor(per_step), self.problem, trajectories))
            for kind, per_step in kinds.items()
        ]
        return min(found, key=lambda opponent: opponent.evaluation.value)

    def choose_ridge(self, trajectories: Sequence[Trajectory]) -> float:
        """The ridge of RIDGES that is best on these (validation) simulations; 0 without any."""
        if not trajectories:
            return RIDGES[0]

        def error(ridge: float) -> float:
            found = self.linear(trajectories, ridge)
            return found.evaluation.value if found else 0.0

        return min(RIDGES, key=error)

    def close_stream(self) -> None:
        """No more samples come: a POD basis that waits for snapshots is made from what is there."""
        self._linear.solve()

    def linear(self, trajectories: Sequence[Trajectory], ridge: float = 0.0) -> Opponent | None:
        """The linear emulator with the samples so far; None before any (or before its basis)."""
        if not self._linear.ready:
            return None
        self._linear.solve(ridge)

        def predict(trajectory: Trajectory) -> dict[str, Tensor]:
            parameters, step = trajectory.parameters.unsqueeze(0), trajectory.step.unsqueeze(0)
            fields = self._linear.predict(parameters, step)
            return {name: values[0] for name, values in fields.items()}

        kind = f"{self._linear.kind}, ridge {ridge:g}"
        return Opponent(kind, evaluate(predict, self.problem, trajectories))
