"""Errors of trained networks and of their opponents on a seed's stored simulations.

`study` calls it: on validation simulations after each run, on test simulations once for each arm,
when its setting is chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, overload

from penstock_server.compare.errors import CompareError
from penstock_server.dataset import DataSet
from penstock_server.evaluation import (
    Evaluation,
    Opponent,
    Opponents,
    Trajectory,
    evaluate,
    network,
)
from penstock_surrogates import Problem, load

BATCH = 256  # samples that the opponents are shown at a time

Points = Sequence[Mapping[str, float]]


class Scores(Protocol):
    """What a comparison asks of stored simulations; `StoredScores` answers."""

    def complete(self, data: Path, points: Points) -> int:
        """How many of the training points, counted from the first, are there without a gap.

        Raises CompareError if a simulation has two roles.
        """

    def validation(self, data: Path, model: Path) -> float:
        """A network's nRMSE on the validation simulations."""

    def test(self, data: Path, model: Path) -> dict[str, Any]:
        """A network's errors on the test simulations, `Evaluation.to_dict`."""

    def opponents(self, data: Path, model: Path, points: Points) -> dict[str, Any]:
        """The opponents' errors on the test simulations, fitted on these training points."""


class Stored(Sequence[Trajectory]):
    """The simulations of a role, read one at a time: together they may not fit into memory."""

    def __init__(self, data: DataSet, role: str) -> None:
        self._data, self._role, self._rows = data, role, data.rows(role).tolist()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Trajectory]:
        return (self._data.trajectory(self._role, row) for row in self._rows)

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Trajectory]: ...
    def __getitem__(self, index: int | slice) -> Trajectory | Sequence[Trajectory]:
        if isinstance(index, slice):
            return self._data.trajectories(self._role, self._rows[index])
        return self._data.trajectory(self._role, self._rows[index])


class StoredScores:
    """From a data.h5."""

    def complete(self, data: Path, points: Points) -> int:
        stored = DataSet(data)
        roles = {role: set(g.simulation[g.complete].tolist()) for role, g in stored.roles.items()}
        for one, other in combinations(roles, 2):
            if shared := roles[one] & roles[other]:
                raise CompareError(
                    f"{data} has simulations that are {one} and {other} at once: "
                    f"{', '.join(map(str, sorted(shared)[:5]))}. It cannot be used."
                )
        found = stored.find("train", points)
        return found.index(None) if None in found else len(found)

    def validation(self, data: Path, model: Path) -> float:
        return evaluate_on(model, DataSet(data), "validation").value

    def test(self, data: Path, model: Path) -> dict[str, Any]:
        return evaluate_on(model, DataSet(data), "test").to_dict()

    def opponents(self, data: Path, model: Path, points: Points) -> dict[str, Any]:
        stored = DataSet(data)
        rows = [row for row in stored.find("train", points) if row is not None]
        group = stored.roles["train"]
        problem = load(model).problem
        fitted = fit(stored, rows, problem, int(group.stored.shape[1]))
        test = _role(stored, "test")
        ridge = fitted.choose_ridge(list(_role(stored, "validation")))
        found = {"constant": fitted.constant(test), "linear": fitted.linear(test, ridge)}
        return {name: _described(opponent) for name, opponent in found.items() if opponent}


def evaluate_on(model: Path, data: DataSet, role: str) -> Evaluation:
    """A model's folder on all complete simulations of a role."""
    surrogate = load(model)
    predict = network(surrogate.model, surrogate.normalisation, surrogate.problem)
    return evaluate(predict, surrogate.problem, _role(data, role))


def fit(data: DataSet, rows: Sequence[int], problem: Problem, steps: int) -> Opponents:
    """The opponents, shown every step of these training simulations once."""
    opponents = Opponents(problem, steps)
    for batch in data.batches("train", BATCH, rows):
        opponents.update(batch)
    opponents.close_stream()
    return opponents


def _role(data: DataSet, role: str) -> Stored:
    stored = Stored(data, role)
    if not len(stored):
        raise CompareError(
            f"{data.path} has no complete {role} simulation; its run's logs say why."
        )
    return stored


def _described(opponent: Opponent) -> dict[str, Any]:
    return {"kind": opponent.kind, **opponent.evaluation.to_dict()}
