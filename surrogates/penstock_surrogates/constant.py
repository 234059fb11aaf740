"""The best constants: an opponent that every surrogate has to beat; the validator fits them.

Two of them from the training stream, neither of which looks at the parameters: the mean field
of each cell over all samples, and, stronger where memory allows it, that mean step by step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from penstock_surrogates.problem import Problem


class ConstantEmulator:
    """Mean fields over all samples and per step, in physical units."""

    def __init__(self, problem: Problem, steps: int, max_bytes: int = 256 << 20) -> None:
        """`steps` is the largest number of steps; per-step means are kept if they fit."""
        self.problem = problem
        self.per_step = 8 * problem.size * steps <= max_bytes
        self._count = 0
        self._total = {
            n: torch.zeros(s.shape, dtype=torch.float64) for n, s in problem.fields.items()
        }
        self._step_counts: dict[int, int] = {}
        self._step_totals: dict[int, dict[str, Tensor]] = {}

    @property
    def count(self) -> int:
        """Steps seen."""
        return self._count

    def update(self, step: Tensor, fields: Mapping[str, Tensor]) -> None:
        """Add training samples: step (b, k), fields name -> (b, k, *shape), physical."""
        flat = step.reshape(-1)
        self._count += len(flat)
        for name in self._total:
            self._total[name] += fields[name].flatten(0, 1).sum(dim=0, dtype=torch.float64)
        if not self.per_step:
            return
        for s in torch.unique(flat).tolist():
            at = flat == s
            self._step_counts[s] = self._step_counts.get(s, 0) + int(at.sum())
            totals = self._step_totals.setdefault(
                s, {name: torch.zeros_like(total) for name, total in self._total.items()}
            )
            for name in totals:
                totals[name] += fields[name].flatten(0, 1)[at].sum(dim=0, dtype=torch.float64)

    def predict(self, step: Tensor, per_step: bool) -> dict[str, Tensor]:
        """(k,) -> name -> (k, *shape); a step never seen gets the mean over all steps."""
        if self._count == 0:
            raise ValueError("The best constant needs training samples, but it has seen none.")
        predicted = {}
        for name, total in self._total.items():
            overall = total / self._count
            rows = [
                self._step_totals[s][name] / self._step_counts[s]
                if per_step and s in self._step_totals
                else overall
                for s in step.tolist()
            ]
            predicted[name] = torch.stack(rows)
        return predicted
