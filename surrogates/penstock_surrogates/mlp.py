"""Direct multilayer perceptron: (parameters, t) -> all fields at t.

The network of the SC'23 and ICML'23 papers on training from streamed simulations: for the heat
problem 6-256-256-n*n with ReLU. Values up to hidden = [1024, 1024] are good; Adam at 1e-3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from penstock_surrogates.problem import Problem
from penstock_surrogates.surrogate import Surrogate

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class MLP(Surrogate):
    """Parameters, t and flattened input fields in, all fields side by side out."""

    def __init__(
        self,
        problem: Problem,
        hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
    ) -> None:
        super().__init__(problem)
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"The activation {activation!r} is unknown; choose one of {', '.join(ACTIVATIONS)}."
            )
        if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in hidden):
            raise ValueError(
                f"hidden lists the widths of the hidden layers as whole numbers above 0, "
                f"for example [256, 256], but it is {list(hidden)}."
            )
        layers: list[nn.Module] = []
        width = len(problem.parameters) + 1 + problem.input_size
        for n in hidden:
            layers += [nn.Linear(width, n), ACTIVATIONS[activation]()]
            width = n
        layers.append(nn.Linear(width, problem.size))
        self.layers = nn.Sequential(*layers)

    def forward(
        self, parameters: Tensor, t: Tensor, inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        b, k = t.shape
        given = [parameters, *(inputs[name].reshape(b, -1) for name in self.problem.inputs)]
        per_sample = torch.cat(given, dim=1)  # (b, p + inputs)
        per_step = per_sample.unsqueeze(1).expand(b, k, per_sample.shape[1])
        output = self.layers(torch.cat([per_step, t.unsqueeze(2)], dim=2))  # (b, k, size)
        parts = output.split([spec.size for spec in self.problem.fields.values()], dim=2)
        return {
            name: part.reshape(b, k, *spec.shape)
            for (name, spec), part in zip(self.problem.fields.items(), parts, strict=True)
        }
