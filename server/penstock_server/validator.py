"""What the validator does with a snapshot: opponents, comparison, reports; no socket, no clock.

`validation` runs it in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from penstock_server.best import Best, Standing
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
    """Fits the opponents, turns snapshots into reports and keeps the best; no socket, no clock."""

    def __init__(
        self,
        problem: Problem,
        steps: int,
        held_out: HeldOut,
        peek: TrainingPeek,
        max_bytes: int,
        best: Best,
        *,
        roles: Sequence[str] = ROLES,
        fits: bool = True,
    ) -> None:
        """roles: that the end looks at; fits: whether opponents are fitted at all."""
        self.problem = problem
        self.best = best
        self.opponents = Opponents(problem, steps, max_bytes)
        self.history: list[tuple[int, float]] = []  # batch, validation error
        self._held_out = held_out
        self._peek = peek
        self._roles = roles
        self._fits = fits

    def fit(self) -> bool:
        """Show the opponents some new training samples; whether there may be more."""
        if not self._fits:
            return False
        for _ in range(FITS_PER_SNAPSHOT):
            batch = self._peek.new_samples(PEEK_SAMPLES)
            if batch is None or len(batch) == 0:
                return False
            self.opponents.update(batch)
        return True

    def check(self, model: Path, batch: int, device: str = "cpu") -> dict[str, Any] | None:
        """The report of a snapshot on the validation simulations; None while there are none.

        If it is the best so far, its model is kept.
        """
        trajectories = self._held_out.trajectories("validation")
        if not trajectories:
            return None
        found = self._compare(model, trajectories, device, ridge=0.0)
        self._judge(model, batch, found.network, trajectories, device)
        return {"batch": batch, "final": False, **found.summary(), "best": self._standing()}

    def finish(self, model: Path, device: str = "cpu") -> Final:
        """The final model on validation and test simulations, beside its opponents and the best.

        The linear emulator's ridge is chosen on the validation simulations, as the network was.
        """
        while self.fit():
            pass
        self.opponents.close_stream()
        batch = int(load(model).about.get("batches", 0))
        held_out = {role: self._held_out.trajectories(role) for role in self._roles}
        validation = held_out.get("validation", [])
        ridge = self.opponents.choose_ridge(validation)
        compared = {
            role: self._compare(model, trajectories, device, ridge)
            for role, trajectories in held_out.items()
            if trajectories
        }
        report: dict[str, Any] = {"batch": batch, "final": True, "metric": METRIC, "value": None}
        best: dict[str, Evaluation] = {}
        if "validation" in compared:
            network = compared["validation"].network
            if self._judge(model, batch, network, validation, device):
                best = {role: comparison.network for role, comparison in compared.items()}
            elif self.best.standing is not None:
                best = {role: self._evaluate_best(held_out[role], device) for role in compared}
            report |= compared["validation"].summary()
        if "test" in compared:
            report["test"] = compared["test"].summary()
        report["best"] = self._standing()
        if "test" in best:
            report["best"] |= {"test": best["test"].value}
        report["opponent_samples"] = self.opponents.samples
        return Final(report, compared, best, validation or held_out.get("test", []))

    def _judge(
        self,
        model: Path,
        batch: int,
        network: Evaluation,
        trajectories: Sequence[Trajectory],
        device: str,
    ) -> bool:
        """Remember the error, and the model if it is the best; whether it is."""
        self.history.append((batch, network.value))
        standing = self.best.standing
        if standing is not None and standing.simulations != len(trajectories):
            # More validation simulations have arrived: errors on fewer do not compare.
            value = self._evaluate_best(trajectories, device).value
            self.best.rejudge(Standing(standing.batch, value, len(trajectories)))
        return self.best.offer(model, Standing(batch, network.value, len(trajectories)))

    def _evaluate_best(self, trajectories: Sequence[Trajectory], device: str) -> Evaluation:
        return self._evaluate(self.best.folder, trajectories, device)

    def _evaluate(self, model: Path, trajectories: Sequence[Trajectory], device: str) -> Evaluation:
        surrogate = load(model, device)
        predict = network(surrogate.model, surrogate.normalisation, self.problem)
        return evaluate(predict, self.problem, trajectories)

    def _compare(
        self, model: Path, trajectories: Sequence[Trajectory], device: str, ridge: float
    ) -> Comparison:
        return Comparison(
            network=self._evaluate(model, trajectories, device),
            constant=self.opponents.constant(trajectories),
            linear=self.opponents.linear(trajectories, ridge),
        )

    def _standing(self) -> dict[str, Any] | None:
        return self.best.standing.to_dict() if self.best.standing is not None else None


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
    compared: dict[str, Comparison]  # role -> figures of the final network
    best: dict[str, Evaluation]  # role -> errors of the best network; empty without validation
    shown: list[Trajectory]  # that the picture may choose from
