"""The linear emulator: ridge regression per step, the opponent that a network has to beat.

From the parameters, scaled to [-1, 1], and 1 to the whole field, for each step by itself, fitted
on the training stream with bounded memory; the validator fits it. For the linear heat equation
it is exact after p + 1 simulations.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from penstock_surrogates.normalisation import Normalisation
from penstock_surrogates.pod import Pod
from penstock_surrogates.problem import Problem

TRUNCATION = 1e-13  # eigenvalues of the normal matrix below this share of the largest count as 0


class LinearEmulator:
    """Normal equations per step, float64, of the whole field or of its POD coefficients.

    With (p + 1) * size * steps * 8 bytes within `max_bytes` the whole field is fitted. If not,
    snapshots of the first simulations, thinned evenly in time, give a POD basis of at most
    `rank` modes; of the samples before the basis stands only those snapshots enter the fit.
    """

    def __init__(
        self, problem: Problem, steps: int, max_bytes: int = 256 << 20, rank: int = 64
    ) -> None:
        """`steps` is the largest number of steps that a simulation sends."""
        self.problem = problem
        self._scaling = Normalisation(problem.parameters, (0.0, 1.0), {})
        self._p = len(problem.parameters) + 1
        self._normal: dict[int, Tensor] = {}  # step -> X'X, (p+1, p+1)
        self._right: dict[int, Tensor] = {}  # step -> X'Y, (p+1, size or rank)
        self._solved: dict[int, Tensor] = {}  # step -> inverse of X'X, (p+1, p+1)
        self._pod: Pod | None = None
        row = 8 * problem.size
        if self._p * row * steps > max_bytes:
            snapshots = min(4 * rank, max_bytes // (4 * row))
            self._rank = min(rank, snapshots, max_bytes // (4 * 8 * self._p * steps))
            if self._rank < 1:
                raise ValueError(
                    f"The linear emulator needs room for at least one snapshot of {row} bytes "
                    f"four times over, but max_bytes is {max_bytes}; raise it."
                )
            simulations = 4 * self._p  # that the basis should come from
            stride = max(1, -(-steps * simulations // snapshots))
            sizes = [spec.size for spec in problem.fields.values()]
            self._pod = Pod(sizes, snapshots, stride, self._rank)

    @property
    def kind(self) -> str:
        """What is fitted, for reports."""
        if self._pod is None:
            return "ridge per step"
        return f"ridge per step on {self._rank} POD modes"

    @property
    def ready(self) -> bool:
        """Whether there is something to solve, and `solve` would not cut the basis short."""
        return bool(self._normal)

    @property
    def samples(self) -> int:
        """Fewest samples that any step was fitted on; p + 1 determine it."""
        return min((int(a[-1, -1]) for a in self._normal.values()), default=0)

    def update(self, parameters: Tensor, step: Tensor, fields: Mapping[str, Tensor]) -> None:
        """Add training samples: physical (b, p), (b, k), {name: (b, k, *shape)}."""
        self._solved.clear()
        x = self._features(parameters).repeat_interleave(step.shape[1], dim=0)  # (b*k, p+1)
        y = self._flatten(fields)  # (b*k, size)
        s = step.reshape(-1)
        if self._pod is not None and not self._pod.ready:
            used = self._pod.add(x, s, y)
            if not self._pod.full:
                return
            self._finish_basis()
            x, s, y = x[used:], s[used:], y[used:]
        self._accumulate(x, s, y)

    def solve(self, ridge: float = 0.0) -> None:
        """Solve the normal equations; `ridge` is relative to the number of samples.

        With ridge 0, directions that the samples leave open get the smallest coefficients. A POD
        basis that still waits for snapshots is made from those that are there.
        """
        if self._pod is not None and not self._pod.ready and not self._pod.empty:
            self._finish_basis()
        penalty = torch.eye(self._p, dtype=torch.float64)
        penalty[-1, -1] = 0.0  # the mean is not shrunk
        self._solved = {
            step: torch.linalg.pinv(
                a + ridge * a[-1, -1] * penalty, hermitian=True, rtol=TRUNCATION
            )
            for step, a in self._normal.items()
        }

    def predict(self, parameters: Tensor, step: Tensor) -> dict[str, Tensor]:
        """(b, p), (b, k) -> {name: (b, k, *shape)} float64; an unseen step takes the nearest."""
        if not self._solved:
            raise ValueError(
                "The linear emulator has to be solved after its last update before it predicts: "
                "call solve(), with at least one training sample seen."
            )
        b, k = step.shape
        x = self._features(parameters)
        y = torch.empty(b, k, self.problem.size, dtype=torch.float64)
        known = torch.tensor(sorted(self._solved))
        nearest = known[(step.unsqueeze(-1) - known).abs().argmin(dim=-1)]  # (b, k)
        for s in torch.unique(nearest).tolist():
            rows, columns = (nearest == s).nonzero(as_tuple=True)
            values = x[rows] @ self._solved[s] @ self._right[s]
            y[rows, columns] = values if self._pod is None else self._pod.decode(values)
        return self._unflatten(y)

    def _finish_basis(self) -> None:
        assert self._pod is not None
        self._accumulate(*self._pod.finish())

    def _accumulate(self, x: Tensor, step: Tensor, y: Tensor) -> None:
        if self._pod is not None:
            y = self._pod.encode(y)
        for s in torch.unique(step).tolist():
            at = step == s
            xs, ys = x[at], y[at]
            if s not in self._normal:
                self._normal[s] = torch.zeros(self._p, self._p, dtype=torch.float64)
                self._right[s] = torch.zeros(self._p, y.shape[1], dtype=torch.float64)
            self._normal[s] += xs.T @ xs
            self._right[s] += xs.T @ ys

    def _features(self, parameters: Tensor) -> Tensor:
        """(b, p) -> (b, p+1)."""
        scaled = self._scaling.scale_parameters(parameters)
        return torch.cat([scaled, torch.ones(len(scaled), 1, dtype=torch.float64)], dim=1)

    def _flatten(self, fields: Mapping[str, Tensor]) -> Tensor:
        """{name: (b, k, *shape)} -> (b*k, size), in the problem's order."""
        parts = [fields[name].reshape(-1, spec.size) for name, spec in self.problem.fields.items()]
        return torch.cat(parts, dim=1).to(torch.float64)

    def _unflatten(self, y: Tensor) -> dict[str, Tensor]:
        parts = torch.split(y, [spec.size for spec in self.problem.fields.values()], dim=2)
        return {
            name: part.reshape(*y.shape[:2], *spec.shape)
            for (name, spec), part in zip(self.problem.fields.items(), parts, strict=True)
        }
