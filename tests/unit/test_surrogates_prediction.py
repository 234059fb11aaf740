"""Predictions of many times: the network sees windows of the kind that it was trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penstock_surrogates.normalisation import Moments, Normalisation
from penstock_surrogates.prediction import predict
from penstock_surrogates.problem import Field, Parameter, Problem


class Telling(nn.Module):
    """Gives each time back as a field, and remembers the windows."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[float]] = []

    def forward(self, parameters: Tensor, t: Tensor, inputs: Any) -> dict[str, Tensor]:
        self.seen += t.tolist()
        return {"u": t[..., None]}


@pytest.mark.parametrize(
    ("window", "stride", "windows"),
    [
        (1, 1, [[0], [1], [2], [3], [4], [5], [6], [7]]),
        (1, 5, [[0], [1], [2], [3], [4], [5], [6], [7]]),
        (3, 1, [[0, 1, 2], [3, 4, 5], [6, 7, 7]]),
        (3, 2, [[0, 2, 4], [1, 3, 5], [6, 7, 7], [7, 7, 7]]),
        (2, 5, [[0, 5], [1, 6], [2, 7], [3, 7], [4, 7]]),
        (8, 3, [[0, 3, 6, 7, 7, 7, 7, 7], [1, 4] + 6 * [7], [2, 5] + 6 * [7]]),
    ],
)
def test_windows_have_the_stride_of_training_and_each_time_comes_back(
    window: int, stride: int, windows: list[list[int]]
) -> None:
    problem = Problem(
        (Parameter("a", 0.0, 1.0),), {"u": Field((1,))}, t_range=(0.0, 1.0),
        window=window, stride=stride,
    )  # fmt: skip
    unit = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)  # mean 0, deviation 1
    normalisation = Normalisation.from_moments(problem, {"u": Moments.of(unit)})
    t = torch.arange(8.0).expand(2, 8)
    model = Telling()
    found = predict(model, normalisation, problem, torch.tensor([[0.0], [1.0]]), t)["u"]
    encoded = normalisation.encode_t(t)[0].tolist()
    assert model.seen == 2 * [[encoded[i] for i in each] for each in windows]
    assert found.shape == (2, 8, 1)
    torch.testing.assert_close(found[..., 0], normalisation.encode_t(t), check_dtype=False)
