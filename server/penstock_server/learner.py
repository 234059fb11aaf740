"""A network while it learns: build it, give it a batch, get one update; the trainer calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from penstock_server.devices import choose_device
from penstock_server.optimisation import build_optimizer, build_schedule
from penstock_server.pending_loss import PendingLoss
from penstock_surrogates import registry
from penstock_surrogates.batch import Batch
from penstock_surrogates.losses import find_loss
from penstock_surrogates.normalisation import Normalisation
from penstock_surrogates.problem import Problem

DTYPES = {"float32": torch.float32, "float64": torch.float64}

# (model, physical batch, normalisation) -> loss per sample, (b,)
TrainingStep = Callable[[nn.Module, Batch, Normalisation], Tensor]


@dataclass(frozen=True)
class LearningPlan:
    """What is learnt and how; from the campaign's [training]."""

    problem: Problem
    surrogate: str = "mlp"
    options: Mapping[str, Any] | None = None
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    planned_batches: int | None = None
    loss: str = "mse"
    training_step: str | None = None  # "module:name" instead of the loss
    dtype: str = "float32"
    device: str = "auto"
    seed: int = 1
    constants: Mapping[str, Any] | None = None  # Normalisation.to_dict() of another run


class Learner:
    """Model, optimiser and schedule of one rank, and what one batch does to them."""

    def __init__(self, plan: LearningPlan, rank: int = 0, world: int = 1) -> None:
        self.plan = plan
        self.device = choose_device(plan.device, rank)
        self.dtype = DTYPES[plan.dtype]
        self.normalisation: Normalisation | None = None  # frozen at the start of training
        torch.manual_seed(plan.seed)
        self.model = registry.build(plan.surrogate, plan.problem, plan.options or {})
        self.model.to(device=self.device, dtype=self.dtype).train()
        self.optimizer = build_optimizer(
            plan.optimizer, self.model.parameters(), plan.learning_rate, plan.weight_decay
        )
        self.schedule = build_schedule(plan.schedule, self.optimizer, plan.planned_batches)
        self._step = find_step(plan)
        self._world = world
        self._wrapped = self.model
        self._spare: Batch | None = None
        torch.manual_seed(plan.seed + 1 + rank)  # dropout and the like differ between ranks

    @property
    def learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def join(self) -> None:
        """Give every rank the weights of rank 0, and average gradients from now on."""
        if self._world == 1 or not any(p.requires_grad for p in self.model.parameters()):
            return
        ids = [self.device.index] if self.device.type == "cuda" else None
        self._wrapped = DistributedDataParallel(
            self.model, device_ids=ids, gradient_as_bucket_view=True
        )

    def step(self, batch: Batch | None, total: int) -> Tensor | PendingLoss:
        """One update with `total` samples over all ranks; gives the sum of this rank's losses.

        On a GPU it returns before the update is computed.

        Averaging over ranks divides by their number, so the weight world / total makes it the
        mean over samples, however many each rank has. A rank without any takes part with one
        sample of weight 0: nobody may be missing in the all-reduce of the gradients.
        """
        if self.normalisation is None:
            raise RuntimeError("A step needs the normalisation, which is frozen at the start.")
        weight = self._world / total if batch is not None else 0.0
        if batch is not None:
            batch = batch.to(self.device)
            present = batch
            self._spare = self._spare or first(batch)
        else:
            present = self._spare = self._spare or blank(self.plan.problem, self.normalisation)
        losses = self._step(self._wrapped, present, self.normalisation)
        if losses.shape != (len(present),):
            raise ValueError(
                f"The loss or training_step should give one loss per sample, shape "
                f"({len(present)},), but it gave {tuple(losses.shape)}."
            )
        self.optimizer.zero_grad(set_to_none=True)
        (losses.sum() * weight).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        loss = losses.detach().sum() if weight else losses.new_zeros(())
        return PendingLoss(loss) if loss.is_cuda else loss


def find_step(plan: LearningPlan) -> TrainingStep:
    """The user's own training step, or the loss between prediction and fields."""
    if plan.training_step is not None:
        own: TrainingStep = registry.find(plan.training_step, {}, "training_step")
        return own
    loss = find_loss(plan.loss)
    names = tuple(plan.problem.fields)

    def supervised(model: nn.Module, batch: Batch, normalisation: Normalisation) -> Tensor:
        encoded = normalisation.encode(batch)
        predicted = model(encoded.parameters, encoded.t, encoded.inputs)
        return loss(predicted, {name: encoded.fields[name] for name in names})

    return supervised


def first(batch: Batch) -> Batch:
    """The first sample alone, on memory of its own."""
    return Batch(
        parameters=batch.parameters[:1].clone(),
        t=batch.t[:1].clone(),
        fields={name: values[:1].clone() for name, values in batch.fields.items()},
        simulation=batch.simulation[:1].clone(),
        step=batch.step[:1].clone(),
        inputs={name: values[:1].clone() for name, values in batch.inputs.items()},
        origin=None if batch.origin is None else batch.origin[:1].clone(),
    )


def blank(problem: Problem, normalisation: Normalisation) -> Batch:
    """A sample at the means, for a rank that never had one: finite under any loss."""
    device, k = normalisation.low.device, problem.window

    def means(name: str, *leading: int) -> Tensor:
        shape = (*leading, *problem.seen_shape(name))
        zeros = torch.zeros(shape, dtype=torch.float64, device=device)
        return normalisation.decode_fields({name: zeros})[name]

    return Batch(
        parameters=torch.tensor([[p.low for p in problem.parameters]], device=device).double(),
        t=torch.full((1, k), normalisation.t_range[0], dtype=torch.float64, device=device),
        fields={name: means(name, 1, k) for name in problem.fields},
        simulation=torch.zeros(1, dtype=torch.int64, device=device),
        step=torch.zeros((1, k), dtype=torch.int64, device=device),
        inputs={name: means(name, 1) for name in problem.inputs},
        origin=None
        if problem.patch is None
        else torch.zeros((1, len(problem.patch)), dtype=torch.int64, device=device),
    )
