"""Optimisers and schedules by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from penstock_server.optimisation import build_optimizer, build_schedule


def rates(name: str, n: int, batches: int | None) -> list[float]:
    optimizer = build_optimizer("sgd", [nn.Parameter(torch.zeros(1))], 1.0, 0.0)
    schedule = build_schedule(name, optimizer, batches)
    found = []
    for _ in range(n):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("torch.optim:Adagrad", object)],
)
def test_an_optimiser_is_found_by_name(name: str, kind: type) -> None:
    optimizer = build_optimizer(name, [nn.Parameter(torch.zeros(2))], 0.1, 0.01)
    assert isinstance(optimizer, kind)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.01)


def test_complex_weights_can_be_trained() -> None:
    weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = build_optimizer("adam", [weight], 0.1, 0.0)
    weight.abs().sum().backward()
    optimizer.step()
    assert weight.abs().max() < 1


def test_cosine_goes_to_zero_and_stays_there() -> None:
    found = rates("cosine", 15, batches=10)
    assert found[0] == 1
    assert found[5] == pytest.approx(0.5)
    assert found[10:] == [0.0] * 5


def test_cosine_without_a_number_of_batches_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a known number of batches"):
        rates("cosine", 1, batches=None)


def test_step_halves_five_times() -> None:
    found = rates("step", 20, batches=12)
    assert found[::2] == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03125, 0.03125, 0.03125, 0.03125]


def test_an_unknown_schedule_is_answered_with_the_ones_there_are() -> None:
    with pytest.raises(ValueError, match="choose one of: constant, cosine, step"):
        rates("linear", 1, None)
