"""Feeds, networks and plans for tests of the trainer, without any process around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penstock_server.feed import Stock
from penstock_server.learner import LearningPlan
from penstock_server.rounds import Limits
from penstock_server.saving import SavingPlan
from penstock_server.trainer import TrainingPlan
from penstock_surrogates.batch import Batch
from penstock_surrogates.mlp import MLP
from penstock_surrogates.normalisation import Moments, Normalisation
from penstock_surrogates.problem import Field, Parameter, Problem

PROBLEM = Problem(
    parameters=(Parameter("a", -1.0, 1.0), Parameter("b", 1.0, 10.0, "log-uniform")),
    fields={"u": Field((3, 2))},
    t_range=(0.0, 1.0),
)


class Interrupted(Exception):
    """Stands for the death of the process."""


class TickingClock:
    """Time goes on by sleeping, and a little with every look."""

    def __init__(self, tick_s: float = 0.001) -> None:
        self.tick_s = tick_s
        self.seconds = 0.0

    def now(self) -> float:
        self.seconds += self.tick_s
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class ScriptedFeed:
    """Prepared batches, in order, each once.

    `ready(n)` says whether batch n (from 0) has come; `die_at` raises Interrupted at that take.
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        ready: Callable[[int], bool] = lambda n: True,
        die_at: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.batches = list(batches)
        self.die_at = die_at
        self.calls: list[tuple[Any, ...]] = []
        self.taken: dict[int, int] = {}  # number in the training -> number in the script
        self._ready, self._sleep = ready, sleep
        self._next = 0

    def stock(self, timeout_s: float) -> Stock:
        if timeout_s and not self._here():
            self._sleep(timeout_s)
        here = self._here()
        size = len(self.batches[self._next]) if here else 0
        total = sum(len(batch) for batch in self.batches) if self._ready(0) else 0
        left = sum(len(batch) for batch in self.batches[self._next :]) if total else 0
        return Stock(
            admitted=total,
            stored=left,
            unseen=left,
            capacity=total,
            ready=size,
            fresh=size,
            complete_simulations=1,
            blocked=False,
            pressure=False,
            over=self._next >= len(self.batches),
        )

    def take(self, batch: int) -> Batch:
        if batch == self.die_at:
            raise Interrupted
        self.taken[batch] = self._next
        self._next += 1
        return self.batches[self._next - 1]

    def restore(self, batch: int) -> None:
        self.calls.append(("restore", batch))
        self.taken = {n: index for n, index in self.taken.items() if n <= batch}
        self._next = 1 + max(self.taken.values(), default=-1)

    def moments(self) -> dict[str, Moments]:
        return moments_of(self.batches)

    def report(self) -> None:
        pass

    def snapshot(self, batch: int) -> None:
        self.calls.append(("snapshot", batch))

    def settle(self, batch: int) -> None:
        self.calls.append(("settle", batch))

    def export_ledger(self, folder: Path, batch: int) -> None:
        (folder / "ledger-0").write_text(str(batch))

    def hold(self, held: bool) -> None:
        self.calls.append(("hold", held))

    def drain(self) -> None:
        self.calls.append(("drain",))

    def skip(self, batch: int) -> None:
        pass

    def redraw(self) -> None:
        self.calls.append(("redraw",))

    def close(self) -> None:
        self.calls.append(("close",))

    def _here(self) -> bool:
        return self._next < len(self.batches) and self._ready(self._next)


class Dropping(MLP):
    """Random in every step: equal runs need equal random states."""

    def forward(self, parameters: Tensor, t: Tensor, inputs: Any) -> dict[str, Tensor]:
        kept = nn.functional.dropout(parameters, 0.3, training=self.training)
        return super().forward(kept, t, inputs)


def absolute(model: nn.Module, batch: Batch, normalisation: Normalisation) -> Tensor:
    """A training step of a user's own."""
    encoded = normalisation.encode(batch)
    predicted = model(encoded.parameters, encoded.t, encoded.inputs)
    return (predicted["u"] - encoded.fields["u"]).abs().flatten(1).mean(dim=1)


def total_only(model: nn.Module, batch: Batch, normalisation: Normalisation) -> Tensor:
    """A wrong one: it gives one number for the batch."""
    return absolute(model, batch, normalisation).mean()


def make_batches(n: int, size: int = 4, seed: int = 0) -> list[Batch]:
    """n batches of a smooth field of the parameters and t, float64."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for number in range(n):
        a = 2 * torch.rand(size, 1, generator=generator, dtype=torch.float64) - 1
        b = 1 + 9 * torch.rand(size, 1, generator=generator, dtype=torch.float64)
        t = torch.rand(size, 1, generator=generator, dtype=torch.float64)
        x = torch.arange(6, dtype=torch.float64).reshape(1, 1, 3, 2)
        u = 300 + 20 * torch.sin(x + a.reshape(-1, 1, 1, 1)) * (1 + b * t).reshape(-1, 1, 1, 1)
        batches.append(
            Batch(
                parameters=torch.cat([a, b], dim=1),
                t=t,
                fields={"u": u},
                simulation=torch.full((size,), number),
                step=torch.zeros(size, 1, dtype=torch.int64),
            )
        )
    return batches


def join(left: Batch, right: Batch) -> Batch:
    """Two batches as one of double size."""
    return Batch(
        parameters=torch.cat([left.parameters, right.parameters]),
        t=torch.cat([left.t, right.t]),
        fields={name: torch.cat([v, right.fields[name]]) for name, v in left.fields.items()},
        simulation=torch.cat([left.simulation, right.simulation]),
        step=torch.cat([left.step, right.step]),
    )


def moments_of(batches: Sequence[Batch]) -> dict[str, Moments]:
    u = Moments.none()
    for batch in batches:
        u += Moments.of(batch.fields["u"])
    return {"u": u}


def make_plan(
    folder: Path,
    ranks: int = 1,
    size: int = 4,
    limits: dict[str, Any] | None = None,
    **learning: Any,
) -> TrainingPlan:
    """A small MLP on `PROBLEM`; everything goes below `folder`."""
    settings: dict[str, Any] = {
        "ranks": ranks,
        "batch_size": size,
        "threshold": 1,
        "band": 2 * ranks * size,
        "policy": "fifo",
        **(limits or {}),
    }
    given: dict[str, Any] = {"options": {"hidden": [16]}, "device": "cpu", **learning}
    return TrainingPlan(
        learning=LearningPlan(problem=PROBLEM, **given),
        limits=Limits(**settings),
        saving=SavingPlan(
            snapshots=folder / "snapshots",
            model=folder / "model",
            checkpoints=folder / "checkpoints",
        ),
    )
