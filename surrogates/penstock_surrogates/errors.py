"""Errors on held-out simulations, as PROTOCOL reports name them; the validator calls them.

nRMSE is the RMSE divided by the field's spread, its standard deviation over the whole held-out
set (a relative L2 norm of temperatures between 100 and 500 would hide the error). A field of
several components is divided component by component, so that none hides another. Predicting
the one best number for everything gives nRMSE = 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from penstock_surrogates.normalisation import Moments, Scale


@dataclass(frozen=True)
class FieldErrors:
    """Errors of one field over a held-out set; mse and rmse in the field's unit (squared)."""

    mse: float
    rmse: float
    nrmse: float
    spread: float  # standard deviation over the set, components pooled
    p50: float  # nRMSE of one simulation: median, 95 % and largest
    p95: float
    max: float
    t: tuple[float, ...]  # mean time of each step
    nrmse_over_t: tuple[float, ...]
    simulations: dict[int, float]  # simulation -> its nRMSE

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


class ErrorCount:
    """Squared errors of one field, added trajectory by trajectory."""

    def __init__(self, truth: Moments) -> None:
        """`truth` counts the true field over the whole held-out set, per component."""
        if truth.count == 0:
            raise ValueError("Errors need at least one held-out simulation, but there is none.")
        self.components = len(truth.mean)
        self.spread = torch.tensor(Scale.standard(truth).width, dtype=torch.float64)  # (c,)
        self._pooled_spread = math.sqrt(float(truth.variance.mean()))
        self._steps: dict[int, tuple[float, float, Tensor]] = {}  # step -> n, sum t, sum mse (c,)
        self._simulations: dict[int, tuple[int, Tensor]] = {}  # simulation -> steps, sum mse (c,)

    def add(
        self, simulation: int, step: Tensor, t: Tensor, truth: Tensor, predicted: Tensor
    ) -> None:
        """One trajectory: step (k,), t (k,), truth and prediction (k, *shape), physical."""
        if truth.shape != predicted.shape:
            raise ValueError(
                f"Simulation {simulation} has fields of shape {tuple(truth.shape)}, but the "
                f"prediction has {tuple(predicted.shape)}."
            )
        error = predicted.to("cpu", torch.float64) - truth.to("cpu", torch.float64)
        squared = error.square_().reshape(len(step), -1, self.components).mean(dim=1)  # (k, c)
        for s, time, mse in zip(step.tolist(), t.tolist(), squared, strict=True):
            n, times, total = self._steps.get(s, (0, 0.0, torch.zeros_like(mse)))
            self._steps[s] = (n + 1, times + time, total + mse)
        steps, total = self._simulations.get(simulation, (0, torch.zeros_like(squared[0])))
        self._simulations[simulation] = (steps + len(step), total + squared.sum(dim=0))

    def result(self) -> FieldErrors:
        """The errors of everything added; all steps count alike."""
        n_steps = sum(steps for steps, _ in self._simulations.values())
        total = torch.stack([mse for _, mse in self._simulations.values()]).sum(dim=0)
        mse = total / n_steps
        each = {sim: self._nrmse(mse / steps) for sim, (steps, mse) in self._simulations.items()}
        quantiles = torch.quantile(
            torch.tensor(list(each.values()), dtype=torch.float64),
            torch.tensor([0.5, 0.95, 1.0], dtype=torch.float64),
        )
        p50, p95, largest = quantiles.tolist()
        in_order = [self._steps[step] for step in sorted(self._steps)]
        return FieldErrors(
            mse=float(mse.mean()),
            rmse=math.sqrt(float(mse.mean())),
            nrmse=self._nrmse(mse),
            spread=self._pooled_spread,
            p50=p50,
            p95=p95,
            max=largest,
            t=tuple(times / n for n, times, _ in in_order),
            nrmse_over_t=tuple(self._nrmse(total / n) for n, _, total in in_order),
            simulations=each,
        )

    def _nrmse(self, mse: Tensor) -> float:
        return math.sqrt(float((mse / self.spread.square()).mean()))


def combine(errors: dict[str, FieldErrors]) -> float:
    """One number for several fields: the root mean square of their nRMSE."""
    return math.sqrt(sum(e.nrmse**2 for e in errors.values()) / len(errors))
