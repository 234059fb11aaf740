"""The contract of every surrogate, ours or a user's `module:Class`; the trainer calls it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from penstock_surrogates.problem import Problem


class Surrogate(nn.Module):
    """A network from normalised (parameters, t, inputs) to normalised fields.

    Built as `Surrogate(problem, **options)`, where options come from the campaign file and are
    plain JSON. It need not inherit from this class; the signatures are the contract.
    """

    def __init__(self, problem: Problem, **options: Any) -> None:
        super().__init__()
        if options:
            raise TypeError(
                f"{type(self).__name__} has no option {', '.join(map(repr, options))}; "
                f"take it out of training.options."
            )
        self.problem = problem

    @abstractmethod
    def forward(
        self, parameters: Tensor, t: Tensor, inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """(b, p), (b, k), {name: (b, *shape)} -> {name: (b, k, *shape)} for every field."""
        raise NotImplementedError
