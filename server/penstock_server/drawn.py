"""What was drawn for training: mean and spread of every input and of t, beside the design's.

Each rank counts its own draws (the trainer), the sum goes into drawn.json (the run's records).
Solvers of unequal cost, or a reservoir that forgets some simulations sooner than others, would show
here as a drift away from the design.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from penstock_surrogates.batch import Batch
from penstock_surrogates.normalisation import Moments

FORMAT = "penstock-drawn-1"
FOLD = 100  # batches whose parameters are kept before they are counted
T = "t"


class Drawn:
    """Of one rank. Warm-up ends when as many samples were admitted as the reservoir holds.

    Until then what is drawn is what came first; `after` counts what was drawn since.
    """

    def __init__(self, names: Sequence[str], warm_up: int) -> None:
        self._names = tuple(names)
        self._warm_up = warm_up  # samples
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._all = self._after = Moments.none(len(self._names) + 1)
        self._warm_at: int | None = None  # the batch from which `after` counts

    def add(self, batch: Batch | None, admitted: float, number: int) -> None:
        """A batch that is about to be trained on; admitted: samples of all ranks so far."""
        if self._warm_at is None and admitted >= self._warm_up:
            self._fold()
            self._warm_at = number
        if batch is not None:
            self._waiting.append((batch.parameters, batch.t))
        if len(self._waiting) >= FOLD:
            self._fold()

    def state(self) -> dict[str, Any]:
        """For a snapshot, and for the sum over ranks."""
        self._fold()
        return {
            "warm_at": self._warm_at,
            "all": _plain(self._all),
            "after": _plain(self._after),
        }

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Back to a state, or to the sum of several, when there are other ranks than before."""
        self._waiting.clear()
        self._warm_at = _first_warm(states)
        self._all, self._after = self._sum(states, "all"), self._sum(states, "after")

    def total(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The states of all ranks as one report; a run that never warmed up counts from batch 0."""
        warm_at = _first_warm(states)
        moments = self._sum(states, "all" if warm_at is None else "after")
        std = moments.variance.sqrt()
        return {
            "after_batches": warm_at or 0,
            "count": moments.count,
            "names": [*self._names, T],
            "mean": moments.mean.tolist(),
            "std": std.tolist(),
            "t_range": [float(moments.low[-1]), float(moments.high[-1])],
        }

    def _sum(self, states: Sequence[Mapping[str, Any]], which: str) -> Moments:
        total = Moments.none(len(self._names) + 1)
        for state in states:
            total = total + _moments(state[which])
        return total

    def _fold(self) -> None:
        if not self._waiting:
            return
        rows = torch.cat(
            [torch.cat([p, t.mean(dim=1, keepdim=True)], dim=1) for p, t in self._waiting]
        )  # (draws, p + 1); a window counts with the mean of its times
        self._waiting.clear()
        moments = Moments.of(rows, rows.shape[1])
        self._all = self._all + moments
        if self._warm_at is not None:
            self._after = self._after + moments


def compare_with_design(
    points: Sequence[Mapping[str, float]], steps: int, drawn: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of drawn.json: the report of `total` beside the training points of the design.

    t of the design: `steps` times, evenly over the range that was seen. `worst`: the largest
    deviation of a mean, in standard deviations of the design, and of a spread, relative to it.
    """
    design = {name: _spread([point[name] for point in points]) for name in drawn["names"][:-1]}
    low, high = drawn["t_range"]
    if math.isfinite(low):
        design[T] = _spread([low + (high - low) * i / max(1, steps - 1) for i in range(steps)])
    found = {
        name: {"mean": mean, "std": std}
        for name, mean, std in zip(drawn["names"], drawn["mean"], drawn["std"], strict=True)
        if name in design
    }
    varied = [name for name, spread in design.items() if spread["std"] > 0]
    return {
        "format": FORMAT,
        "after_batches": drawn["after_batches"],
        "draws": drawn["count"],
        "names": list(design),
        "design": design,
        "drawn": found,
        "worst": {
            "mean": max(
                (abs(found[n]["mean"] - design[n]["mean"]) / design[n]["std"] for n in varied),
                default=0.0,
            ),
            "std": max(
                (abs(found[n]["std"] / design[n]["std"] - 1) for n in varied),
                default=0.0,
            ),
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return {"mean": mean, "std": math.sqrt(variance)}


def _first_warm(states: Sequence[Mapping[str, Any]]) -> int | None:
    """All ranks warm up in the same round, but for ones that joined at a restart."""
    return min((s["warm_at"] for s in states if s["warm_at"] is not None), default=None)


def _plain(moments: Moments) -> dict[str, Any]:
    parts = ("mean", "deviations", "low", "high")
    return {"count": moments.count, **{name: getattr(moments, name).tolist() for name in parts}}


def _moments(plain: Mapping[str, Any]) -> Moments:
    parts = {k: torch.tensor(v, dtype=torch.float64) for k, v in plain.items() if k != "count"}
    return Moments(int(plain["count"]), **parts)
