"""What the validator does with a snapshot: opponents, comparison, reports; no socket, no clock.

`validation` runs it in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from penstock_server.evaluation import (
    METRIC,
    Evaluation,
    Opponent,
    Opponents,
    Trajectory,
    evaluate,
    network,
)
from penstock_surrogates import Batch, Problem, load

ROLES = ("validation", "test")
PEEK_SAMPLES = 256  # at a time, so that a snapshot never waits long
FITS_PER_SNAPSHOT = 50  # peeks between two looks for a snapshot


class HeldOut(Protocol):
    """The held-out shard as the validator sees it."""

    def trajectories(self, role: str) -> list[Trajectory]:
        """The complete simulations of a role, those that have arrived."""


class TrainingPeek(Protocol):
    """The training shards as the validator sees them: read only, drawing nothing."""

    def new_samples(self, max_samples: int) -> Batch | None:
        """Samples admitted since the last call, each step once; None if there are none."""


class Validator:
    """Fits the opponents and turns snapshots into reports; knows no socket and no clock."""

    def __init__(
        self, problem: Problem, steps: int, held_out: HeldOut, peek: TrainingPeek, max_bytes: int
    ) -> None:
        self.problem = problem
        self.opponents = Opponents(problem, steps, max_bytes)
        self.history: list[tuple[int, float]] = []  # batch, validation error
        self._held_out = held_out
        self._peek = peek

    def fit(self) -> bool:
        """Show the opponents some new training samples; whether there may be more."""
        for _ in range(FITS_PER_SNAPSHOT):
            batch = self._peek.new_samples(PEEK_SAMPLES)
            if batch is None or len(batch) == 0:
                return False
            self.opponents.update(batch)
        return True

    def check(self, model: Path, batch: int, device: str = "cpu") -> dict[str, Any] | None:
        """The report of a snapshot on the validation simulations; None while there are none."""
        trajectories = self._held_out.trajectories("validation")
        if not trajectories:
            return None
        found = self._compare(model, trajectories, device, ridge=0.0)
        self.history.append((batch, found.network.value))
        return {"batch": batch, "final": False, **found.summary(), "best": self._best()}

    def finish(self, model: Path, device: str = "cpu") -> Final:
        """The final model on validation and test simulations, beside its opponents.

        The linear emulator's ridge is chosen on the validation simulations, as the network was.
        """
        while self.fit():
            pass
        self.opponents.close_stream()
        batch = int(load(model).about.get("batches", 0))
        compared: dict[str, Comparison] = {}
        trajectories = {role: self._held_out.trajectories(role) for role in ROLES}
        ridge = self.opponents.choose_ridge(trajectories["validation"])
        for role, held_out in trajectories.items():
            if held_out:
                compared[role] = self._compare(model, held_out, device, ridge)
        report: dict[str, Any] = {"batch": batch, "final": True, "metric": METRIC, "value": None}
        if "validation" in compared:
            self.history.append((batch, compared["validation"].network.value))
            report |= compared["validation"].summary()
        if "test" in compared:
            report["test"] = compared["test"].summary()
        report["best"] = self._best()
        report["opponent_samples"] = self.opponents.samples
        return Final(report, compared, trajectories["validation"] or trajectories["test"])

    def _compare(
        self, model: Path, trajectories: Sequence[Trajectory], device: str, ridge: float
    ) -> Comparison:
        surrogate = load(model, device)
        predict = network(surrogate.model, surrogate.normalisation, self.problem)
        return Comparison(
            network=evaluate(predict, self.problem, trajectories),
            constant=self.opponents.constant(trajectories),
            linear=self.opponents.linear(trajectories, ridge),
        )

    def _best(self) -> dict[str, Any] | None:
        if not self.history:
            return None
        batch, value = min(self.history, key=lambda entry: entry[1])
        return {"batch": batch, "value": value}


@dataclass(frozen=True)
class Comparison:
    """The network beside its opponents on the same simulations."""

    network: Evaluation
    constant: Opponent | None  # None: no training sample seen yet
    linear: Opponent | None

    def summary(self) -> dict[str, Any]:
        """`value`, `baseline` and `linear` are one metric: nRMSE over all fields."""
        return {
            **self.network.summary(),
            "baseline": self.constant.evaluation.value if self.constant else None,
            "baseline_kind": self.constant.kind if self.constant else None,
            "linear": self.linear.evaluation.value if self.linear else None,
            "linear_kind": self.linear.kind if self.linear else None,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, with the curves over t and each simulation's error."""
        opponents = {"constant": self.constant, "linear": self.linear}
        return {
            "network": self.network.to_dict(),
            **{
                name: None if found is None else {"kind": found.kind, **found.evaluation.to_dict()}
                for name, found in opponents.items()
            },
        }


@dataclass(frozen=True)
class Final:
    """The last report, and what the file and the picture are made of."""

    report: dict[str, Any]
    compared: dict[str, Comparison]  # role -> figures
    shown: list[Trajectory]  # that the picture may choose from
