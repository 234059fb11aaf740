"""Mean and spread of what was drawn: over ranks, after warm-up, through a snapshot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from penstock_server.drawn import FOLD, Drawn, compare_with_design
from penstock_surrogates.batch import Batch


def batch(parameters: list[list[float]], t: list[float]) -> Batch:
    b = len(parameters)
    return Batch(
        parameters=torch.tensor(parameters, dtype=torch.float64),
        t=torch.tensor(t, dtype=torch.float64)[:, None],
        fields={},
        simulation=torch.zeros(b, dtype=torch.int64),
        step=torch.zeros((b, 1), dtype=torch.int64),
    )


def test_the_sum_over_ranks_is_that_of_all_draws() -> None:
    rng = np.random.default_rng(0)
    ranks, rows = [Drawn(["a", "b"], 0) for _ in range(2)], []
    for number in range(FOLD + 7):
        for drawn in ranks:
            some = rng.normal([5, -2, 0.5], [1, 3, 0.1], (4, 3))
            rows.append(some)
            drawn.add(batch(some[:, :2].tolist(), some[:, 2].tolist()), 100, number)
    everything = np.concatenate(rows)
    found = ranks[0].total([drawn.state() for drawn in ranks])
    assert found["count"] == len(everything)
    assert found["names"] == ["a", "b", "t"]
    assert found["mean"] == pytest.approx(everything.mean(axis=0).tolist())
    assert found["std"] == pytest.approx(everything.std(axis=0).tolist())
    assert found["t_range"] == pytest.approx([everything[:, 2].min(), everything[:, 2].max()])


def test_draws_before_warm_up_are_left_out() -> None:
    drawn = Drawn(["a"], warm_up=50)
    drawn.add(batch([[1.0]], [0.0]), 10, 0)
    drawn.add(batch([[2.0]], [0.0]), 49, 1)
    drawn.add(batch([[7.0]], [0.0]), 50, 2)
    drawn.add(None, 60, 3)  # a rank that had nothing to draw
    drawn.add(batch([[9.0]], [0.0]), 60, 4)
    found = drawn.total([drawn.state()])
    assert (found["after_batches"], found["count"], found["mean"][0]) == (2, 2, 8.0)


def test_a_reservoir_that_never_filled_counts_everything() -> None:
    drawn = Drawn(["a"], warm_up=50)
    drawn.add(batch([[1.0], [3.0]], [0.0, 0.0]), 10, 0)
    found = drawn.total([drawn.state()])
    assert (found["after_batches"], found["mean"][0]) == (0, 2.0)


def test_a_snapshot_brings_the_counts_back() -> None:
    drawn = Drawn(["a"], 0)
    drawn.add(batch([[1.0]], [0.5]), 5, 0)
    state = drawn.state()
    drawn.add(batch([[100.0]], [0.5]), 5, 1)
    again = Drawn(["a"], 0)
    again.restore([state])
    assert again.total([again.state()])["mean"][0] == 1.0


def test_other_ranks_than_before_go_on_from_the_sum() -> None:
    before = [Drawn(["a"], 50) for _ in range(2)]
    for number, admitted in ((3, 10), (4, 60)):
        for rank, drawn in enumerate(before):
            drawn.add(batch([[float(number + rank)]], [0.5]), admitted, number)
    after = [Drawn(["a"], 50) for _ in range(3)]
    after[0].restore([drawn.state() for drawn in before])
    for drawn in after:
        drawn.add(batch([[9.0]], [0.5]), 70, 5)
    found = after[0].total([drawn.state() for drawn in after])
    assert (found["after_batches"], found["count"]) == (4, 5)
    assert found["mean"][0] == pytest.approx((4 + 5 + 9 + 9 + 9) / 5)


def test_the_worst_deviation_is_in_units_of_the_design() -> None:
    points = [{"a": float(value)} for value in (0, 2, 4)]  # mean 2, deviation 1.633
    drawn = {
        "after_batches": 3,
        "count": 10,
        "names": ["a", "t"],
        "mean": [2.1633, 0.5],
        "std": [1.633 * 0.9, 0.316],
        "t_range": [0.0, 1.0],
    }
    found = compare_with_design(points, 11, drawn)
    assert found["design"]["t"] == pytest.approx({"mean": 0.5, "std": 0.3162}, abs=1e-4)
    assert found["worst"]["mean"] == pytest.approx(0.1, abs=1e-3)
    assert found["worst"]["std"] == pytest.approx(0.1, abs=1e-3)
