"""Optimisers and learning-rate schedules by name or a user's `module:name`; the learner calls it.

Schedules are closed forms of the number of batches, so that a restored run continues exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from penstock_surrogates.registry import find

STEP_BATCHES = 1000  # between two halvings, if the number of batches is not known
HALVINGS = 5

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}


def build_optimizer(
    name: str, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> Optimizer:
    """One of OPTIMIZERS, or `module:name` called as name(parameters, lr=, weight_decay=)."""
    make = find(name, OPTIMIZERS, "optimizer")
    parameters = [p for p in parameters if p.requires_grad]
    options: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    if name in OPTIMIZERS:
        # One kernel for all weights: a third of the time of the loop on small networks.
        options["fused"] = all(torch.is_floating_point(p) for p in parameters)
    optimizer = make(parameters, **options)
    if not isinstance(optimizer, Optimizer):
        raise ValueError(
            f"The optimizer {name!r} should give a torch.optim.Optimizer, but it gave "
            f"{type(optimizer).__name__}."
        )
    return optimizer


def constant(optimizer: Optimizer, batches: int | None) -> LRScheduler:
    """The learning rate as it is."""
    return LambdaLR(optimizer, lambda n: 1.0)


def cosine(optimizer: Optimizer, batches: int | None) -> LRScheduler:
    """Half a cosine from the learning rate to zero over `batches`; zero after them."""
    if batches is None:
        raise ValueError(
            'schedule = "cosine" needs a known number of batches: set stop.batches, or '
            "solver.steps together with reservoir.draws_per_sample."
        )
    return LambdaLR(optimizer, lambda n: 0.5 * (1 + math.cos(math.pi * min(1.0, n / batches))))


def step(optimizer: Optimizer, batches: int | None) -> LRScheduler:
    """Halved five times: at every sixth of `batches`, or every 1,000 if they are not known."""
    every = STEP_BATCHES if batches is None else max(1, batches // (HALVINGS + 1))
    return LambdaLR(optimizer, lambda n: 0.5 ** min(HALVINGS, n // every))


SCHEDULES: dict[str, Callable[[Optimizer, int | None], LRScheduler]] = {
    "constant": constant,
    "cosine": cosine,
    "step": step,
}


def build_schedule(name: str, optimizer: Optimizer, batches: int | None) -> LRScheduler:
    """One of SCHEDULES, or `module:name` called as name(optimizer, batches or None)."""
    schedule = find(name, SCHEDULES, "schedule")(optimizer, batches)
    if not isinstance(schedule, LRScheduler):
        raise ValueError(
            f"The schedule {name!r} should give a torch.optim.lr_scheduler.LRScheduler, but it "
            f"gave {type(schedule).__name__}."
        )
    return schedule
