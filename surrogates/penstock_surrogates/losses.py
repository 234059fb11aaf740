"""Losses per sample, so that the ranks can weight them by their counts; the trainer calls one.

A loss takes two dicts name -> (b, k, *shape) of normalised fields and gives (b,). Several
fields count alike, whatever their sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor

from penstock_surrogates.registry import find

Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


def mse(predicted: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
    """Mean squared error, (b,)."""
    return _over_fields(lambda p, q: (p - q).square().mean(dim=1), predicted, target)


def l1(predicted: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
    """Mean absolute error, (b,)."""
    return _over_fields(lambda p, q: (p - q).abs().mean(dim=1), predicted, target)


def relative_l2(predicted: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
    """Norm of the error over the norm of the (normalised) target, (b,)."""

    def relative(p: Tensor, q: Tensor) -> Tensor:
        # A target that lies at the mean of its field is zero here and must not divide.
        floor = 1e-3 * q.shape[1] ** 0.5
        error: Tensor = torch.linalg.vector_norm(p - q, dim=1)
        size: Tensor = torch.linalg.vector_norm(q, dim=1)
        return error / size.clamp_min(floor)

    return _over_fields(relative, predicted, target)


LOSSES: dict[str, Loss] = {"mse": mse, "l1": l1, "relative_l2": relative_l2}


def find_loss(name: str) -> Loss:
    """A loss of `LOSSES`, or a user's own `module:name` with the same signature."""
    return cast(Loss, find(name, LOSSES, "loss"))


def _over_fields(
    error: Callable[[Tensor, Tensor], Tensor],
    predicted: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
) -> Tensor:
    """Mean over the fields of an error of (b, values)."""
    if set(predicted) != set(target):
        raise ValueError(
            f"The surrogate should predict the fields {', '.join(sorted(target))}, "
            f"but it gave {', '.join(sorted(predicted)) or 'none'}."
        )
    errors = []
    for name, values in target.items():
        if predicted[name].shape != values.shape:
            raise ValueError(
                f"The surrogate should predict {name!r} with shape {tuple(values.shape)}, "
                f"but it gave {tuple(predicted[name].shape)}."
            )
        errors.append(error(predicted[name].flatten(1), values.flatten(1)))
    return torch.stack(errors).mean(dim=0)
