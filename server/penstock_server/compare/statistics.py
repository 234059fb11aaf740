"""Geometric means, paired ratios, their intervals and the verdict; pure, `result` calls it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student

CONFIDENCE = 0.95
BETTER, BAR_MET, UNDECIDED = "better", "bar met", "undecided"


@dataclass(frozen=True)
class Spread:
    """A geometric mean and its 95 % interval; no interval for a single value."""

    mean: float
    low: float | None
    high: float | None
    n: int

    def root(self) -> Spread:
        """The same of the square roots: from MSE to RMSE."""
        low, high = (None if v is None else math.sqrt(v) for v in (self.low, self.high))
        return Spread(math.sqrt(self.mean), low, high, self.n)


def geometric(values: Sequence[float]) -> Spread:
    """The t interval of the mean of the logarithms. Raises ValueError unless all are positive."""
    if not values:
        raise ValueError("A geometric mean needs at least one value, but there is none.")
    if any(not 0 < value < math.inf for value in values):
        raise ValueError(
            "A geometric mean needs positive finite values, got "
            f"{', '.join(f'{value:g}' for value in values)}."
        )
    logs = [math.log(value) for value in values]
    n, mean = len(logs), math.fsum(logs) / len(logs)
    if n == 1:
        return Spread(values[0], None, None, 1)
    variance = math.fsum((x - mean) ** 2 for x in logs) / (n - 1)
    half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * math.sqrt(variance / n)
    return Spread(math.exp(mean), math.exp(mean - half), math.exp(mean + half), n)


def paired(ours: Sequence[float], peer: Sequence[float]) -> Spread:
    """Of the ratios ours/peer, seed by seed. Raises ValueError unless all have a logarithm."""
    return geometric([quotient(a, b) for a, b in zip(ours, peer, strict=True)])


def quotient(ours: float, peer: float) -> float:
    """Their ratio; NaN beside a peer without any error."""
    return ours / peer if peer != 0 else math.nan


def verdict(ratio: Spread | None, bar: float) -> str:
    """better: the interval's upper end is below 1; bar met: the mean is below the bar; or both.

    Without a mean ratio, as when a network has diverged: undecided.
    """
    if ratio is None:
        return UNDECIDED
    words = []
    if ratio.high is not None and ratio.high < 1:
        words.append(BETTER)
    if ratio.mean < bar:
        words.append(BAR_MET)
    return ", ".join(words) or UNDECIDED
