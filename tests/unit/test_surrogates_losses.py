"""Losses per sample."""

from __future__ import annotations

import pytest
import torch

from penstock_surrogates import find_loss


def test_losses_are_per_sample_and_weigh_fields_alike() -> None:
    target = {"u": torch.zeros(2, 1, 10), "q": torch.zeros(2, 1)}
    predicted = {
        "u": torch.tensor([1.0, 2.0]).reshape(2, 1, 1).expand(2, 1, 10),
        "q": torch.zeros(2, 1),
    }
    assert find_loss("mse")(predicted, target).tolist() == [0.5, 2.0]
    assert find_loss("l1")(predicted, target).tolist() == [0.5, 1.0]


def test_relative_l2_is_relative_and_safe_at_zero() -> None:
    target = {"u": torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]])}
    predicted = {"u": torch.tensor([[[3.0, 4.5]], [[0.0, 0.0]]], requires_grad=True)}
    errors = find_loss("relative_l2")(predicted, target)
    torch.testing.assert_close(errors, torch.tensor([0.1, 0.0]))
    torch.autograd.backward(errors.sum())
    assert torch.isfinite(predicted["u"].grad).all()  # type: ignore[arg-type]


def test_wrong_predictions_and_names_are_answered_in_sentences() -> None:
    target = {"u": torch.zeros(2, 1, 10)}
    with pytest.raises(ValueError, match="should predict the fields u, but it gave v"):
        find_loss("mse")({"v": torch.zeros(2, 1, 10)}, target)
    with pytest.raises(ValueError, match=r"'u' with shape \(2, 1, 10\), but it gave \(2, 10\)"):
        find_loss("mse")({"u": torch.zeros(2, 10)}, target)
    with pytest.raises(
        ValueError, match="loss 'rmse' is unknown; choose one of: mse, l1, relative_l2"
    ):
        find_loss("rmse")
    assert find_loss("penstock_surrogates.losses:l1") is find_loss("l1")
