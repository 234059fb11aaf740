"""Paired ratios against numbers that were computed by hand."""

from __future__ import annotations

import math

import pytest

from penstock_server.compare.statistics import Spread, geometric, paired, verdict


def test_three_ratios_give_the_mean_and_the_interval_of_the_books() -> None:
    # Logarithms -2 ln 2, -ln 2, 0: mean -ln 2, deviation ln 2; t(0.975, 2) = 4.302653.
    found = paired([1.0, 2.0, 4.0], [4.0, 4.0, 4.0])
    half = 4.302653 * math.log(2) / math.sqrt(3)
    assert found.mean == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5 * math.exp(-half), rel=1e-6)
    assert found.high == pytest.approx(0.5 * math.exp(half), rel=1e-6)
    assert found.n == 3


def test_ratios_are_paired_so_that_hard_seeds_cancel() -> None:
    found = paired([1.0, 10.0, 100.0], [2.0, 20.0, 200.0])
    assert found.low == pytest.approx(0.5)
    assert found.high == pytest.approx(0.5)


def test_one_seed_has_no_interval_and_cannot_be_better() -> None:
    found = paired([0.1], [1.0])
    assert found == Spread(0.1, None, None, 1)
    assert verdict(found, bar=0.05) == "undecided"
    assert verdict(found, bar=0.32) == "bar met"


@pytest.mark.parametrize(
    ("spread", "words"),
    [
        (Spread(0.3, 0.2, 0.9, 5), "better, bar met"),
        (Spread(0.4, 0.2, 0.9, 5), "better"),
        (Spread(0.3, 0.1, 1.2, 5), "bar met"),
        (Spread(0.5, 0.2, 1.0, 5), "undecided"),
        (Spread(0.32, 0.2, 1.5, 5), "undecided"),
    ],
)
def test_the_verdict_has_the_words_of_the_protocol(spread: Spread, words: str) -> None:
    assert verdict(spread, bar=0.32) == words


def test_a_gain_of_68_percent_is_0_32_of_mse_and_0_57_of_rmse() -> None:
    root = Spread(0.32, 0.16, 0.64, 5).root()
    assert root.mean == pytest.approx(0.5657, abs=1e-4)
    assert (root.low, root.high) == (pytest.approx(0.4), pytest.approx(0.8))


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [1.0, math.inf], [math.nan]])
def test_what_has_no_logarithm_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="geometric mean"):
        geometric(values)
