"""Errors on held-out simulations: each figure by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch

from penstock_surrogates import ErrorCount, Moments
from penstock_surrogates.errors import combine


def test_every_figure_of_a_scalar_field_is_as_by_hand() -> None:
    truth = {1: torch.tensor([[0.0, 4.0], [0.0, 4.0]]), 2: torch.tensor([[4.0, 0.0]])}
    moments = Moments.of(truth[1]) + Moments.of(truth[2])  # spread 2
    count = ErrorCount(moments)
    count.add(1, torch.tensor([0, 1]), torch.tensor([0.1, 0.2]), truth[1], truth[1] + 1.0)
    count.add(2, torch.tensor([0]), torch.tensor([0.3]), truth[2], truth[2] + 2.0)
    errors = count.result()
    assert errors.spread == 2
    assert errors.mse == 2  # (1 + 1 + 4) / 3
    assert errors.rmse == math.sqrt(2)
    assert errors.nrmse == math.sqrt(2) / 2
    assert errors.simulations == {1: 0.5, 2: 1.0}
    assert (errors.p50, errors.max) == (0.75, 1.0)
    assert errors.p95 == pytest.approx(0.975)
    assert errors.t == pytest.approx((0.2, 0.2))
    assert errors.nrmse_over_t == pytest.approx((math.sqrt(2.5) / 2, 0.5))
    assert json.loads(json.dumps(errors.to_dict()))["mse"] == 2
    assert combine({"a": errors, "b": errors}) == pytest.approx(errors.nrmse)


def test_a_small_component_is_not_hidden_by_a_large_one() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([1000.0, 0.01], dtype=torch.float64)
    truth = torch.randn(1, 5000, 2, dtype=torch.float64, generator=generator) * scales
    count = ErrorCount(Moments.of(truth, components=2))
    predicted = truth.clone()
    predicted[..., 1] = 0.0  # the small one is not learnt at all
    count.add(0, torch.tensor([0]), torch.tensor([0.0]), truth, predicted)
    assert count.result().nrmse == pytest.approx(math.sqrt(0.5), rel=1e-3)


def test_the_best_number_has_an_error_of_one_and_a_constant_truth_is_safe() -> None:
    truth = torch.randn(10, 7, dtype=torch.float64)
    step = torch.arange(10)
    count = ErrorCount(Moments.of(truth))
    count.add(0, step, step.double(), truth, truth.mean().expand(10, 7))
    assert count.result().nrmse == pytest.approx(1.0)
    flat = torch.full((10, 7), 293.15)
    count = ErrorCount(Moments.of(flat))
    count.add(0, step, step.double(), flat, flat + 0.5)
    assert count.result().nrmse == pytest.approx(0.5, rel=1e-4)


def test_wrong_shapes_and_empty_sets_are_answered_in_sentences() -> None:
    count = ErrorCount(Moments.of(torch.zeros(3)))
    with pytest.raises(ValueError, match=r"Simulation 4 has fields of shape \(1, 3\)"):
        count.add(4, torch.tensor([0]), torch.tensor([0.0]), torch.zeros(1, 3), torch.zeros(3))
    with pytest.raises(ValueError, match="at least one held-out simulation"):
        ErrorCount(Moments.none())
