"""What a surrogate is trained on: one batch of samples, as the feed hands it to the trainer."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """`b` samples of `k` steps each: consecutive ones, or every n-th (`training.stride`).

    Values are physical as the feed gives them; `Normalisation.encode` makes a batch of
    normalised ones. With `training.patch` fields and input fields on the grid are boxes out of the
    whole ones, one box a sample.
    """

    parameters: Tensor  # (b, p), in the order of Problem.parameters
    t: Tensor  # (b, k)
    fields: dict[str, Tensor]  # name -> (b, k, *shape)
    simulation: Tensor  # (b,) int64
    step: Tensor  # (b, k) int64
    inputs: dict[str, Tensor] = field(default_factory=dict)  # name -> (b, *shape)
    origin: Tensor | None = None  # (b, axes) int64, where the boxes begin; None: whole fields
    there: Batch | None = None  # the same on the device of the training, if it was brought there

    def __post_init__(self) -> None:
        b, k = len(self.parameters), self.t.shape[-1]
        expected = {"t": (b, k), "simulation": (b,), "step": (b, k)}
        for name, shape in expected.items():
            actual = tuple(getattr(self, name).shape)
            if actual != shape:
                raise ValueError(
                    f"A batch of {b} samples and {k} steps needs {name} of shape {shape}, "
                    f"but it has shape {actual}."
                )
        for name, values in self.fields.items():
            if tuple(values.shape[:2]) != (b, k):
                raise ValueError(
                    f"A batch of {b} samples and {k} steps needs the field {name!r} with leading "
                    f"axes ({b}, {k}), but its shape is {tuple(values.shape)}."
                )
        for name, values in self.inputs.items():
            if values.shape[:1] != (b,):
                raise ValueError(
                    f"A batch of {b} samples needs the input field {name!r} with a leading axis "
                    f"of {b}, but its shape is {tuple(values.shape)}."
                )

    def __len__(self) -> int:
        return len(self.parameters)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; a GPU has it before what it is told to compute next."""
        if self.there is not None and self.there.parameters.device == torch.device(device):
            return self.there

        def move(values: Tensor) -> Tensor:
            return values.to(device, non_blocking=True)

        return Batch(
            parameters=move(self.parameters),
            t=move(self.t),
            fields={name: move(values) for name, values in self.fields.items()},
            simulation=move(self.simulation),
            step=move(self.step),
            inputs={name: move(values) for name, values in self.inputs.items()},
            origin=None if self.origin is None else move(self.origin),
        )
