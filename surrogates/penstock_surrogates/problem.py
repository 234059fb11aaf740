"""What a surrogate maps to what: parameters and t (and input fields) to fields.

Built by the server from the campaign file, saved beside every model, read by `load`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DISTRIBUTIONS = ("uniform", "log-uniform", "integer", "choice")
ROLES = ("state", "input", "forcing", "quantity")
RESERVED = "t"  # the key of times beside the names of fields


@dataclass(frozen=True)
class Parameter:
    """A scalar input and the range it is drawn from; for choices, their smallest and largest."""

    name: str
    low: float
    high: float
    distribution: str = "uniform"

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"The parameter {self.name!r} has the distribution {self.distribution!r}; "
                f"choose one of {', '.join(DISTRIBUTIONS)}."
            )
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(
                f"The parameter {self.name!r} needs finite bounds with low <= high, "
                f"but they are {self.low} and {self.high}."
            )
        if self.distribution == "log-uniform" and self.low <= 0:
            raise ValueError(
                f"The parameter {self.name!r} is log-uniform and needs low > 0, "
                f"but low is {self.low}."
            )

    @property
    def logarithmic(self) -> bool:
        return self.distribution == "log-uniform"


@dataclass(frozen=True)
class Field:
    """An array of fixed shape; with more than one component they are its trailing axis."""

    shape: tuple[int, ...]
    role: str = "state"
    unit: str = ""
    components: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if any(n < 1 for n in self.shape):
            raise ValueError(
                f"A field needs axes of at least one cell, but its shape is {self.shape}."
            )
        if self.role not in ROLES:
            raise ValueError(
                f"The role {self.role!r} is unknown; choose one of {', '.join(ROLES)}."
            )
        if self.components < 1 or (self.components > 1 and self.shape[-1:] != (self.components,)):
            raise ValueError(
                f"A field of {self.components} components has them as its trailing axis, "
                f"but its shape is {self.shape}."
            )

    @property
    def size(self) -> int:
        """Number of values in one step."""
        return math.prod(self.shape)

    @property
    def grid(self) -> tuple[int, ...]:
        """The axes without that of the components."""
        return self.shape[:-1] if self.components > 1 else self.shape


@dataclass(frozen=True)
class Problem:
    """The map that a surrogate learns: (parameters, t, inputs) -> fields."""

    parameters: tuple[Parameter, ...]
    fields: Mapping[str, Field]  # what the surrogate predicts
    inputs: Mapping[str, Field] = field(default_factory=dict)  # what it is given, once a simulation
    t_range: tuple[float, float] | None = None  # None: not known before the first data, or steady
    window: int = 1  # K, steps in a sample
    stride: int = 1  # steps of the stream from one of these to the next
    patch: tuple[int, ...] | None = None  # extents of the boxes that training sees of the grid

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(self.parameters))
        object.__setattr__(self, "fields", dict(self.fields))
        object.__setattr__(self, "inputs", dict(self.inputs))
        if self.t_range is not None:
            low, high = self.t_range
            object.__setattr__(self, "t_range", (float(low), float(high)))
        names = self.parameter_names
        if len(set(names)) < len(names):
            raise ValueError(f"Parameters need different names, but they are {', '.join(names)}.")
        if not self.fields:
            raise ValueError("A problem needs at least one field to predict, but none is given.")
        both = set(self.fields) & set(self.inputs)
        if both:
            raise ValueError(
                f"A field is predicted or given, not both, but these are both: "
                f"{', '.join(sorted(both))}."
            )
        if RESERVED in self.fields or RESERVED in self.inputs:
            raise ValueError(f"No field can be named {RESERVED!r}: that is the time. Rename it.")
        if self.window < 1:
            raise ValueError(f"A sample needs a window of at least 1 step, not {self.window}.")
        if self.stride < 1:
            raise ValueError(f"Steps of a sample are at least 1 apart, not {self.stride}.")
        if self.patch is not None:
            object.__setattr__(self, "patch", tuple(int(n) for n in self.patch))
            self._check_patch(self.patch)

    def _check_patch(self, patch: tuple[int, ...]) -> None:
        grids = {spec.grid for spec in self.fields.values() if len(spec.grid) == len(patch)}
        if len(grids) != 1:
            found = " and ".join(str(list(grid)) for grid in sorted(grids)) or "none"
            raise ValueError(
                f"A patch of {len(patch)} axes is cut out of fields on one grid of as many axes, "
                f"but there are {found}."
            )
        (grid,) = grids
        if any(not 0 < extent <= length for extent, length in zip(patch, grid)):
            raise ValueError(f"A patch of {list(patch)} does not fit into the grid {list(grid)}.")

    @property
    def grid(self) -> tuple[int, ...]:
        """What patches are cut out of; empty without any."""
        axes = len(self.patch or ())
        return next((f.grid for f in self.fields.values() if axes and len(f.grid) == axes), ())

    @property
    def patched(self) -> tuple[str, ...]:
        """The fields and input fields that training sees in boxes."""
        both = {**self.fields, **self.inputs}
        return tuple(name for name, f in both.items() if self.grid and f.grid == self.grid)

    def seen_shape(self, name: str) -> tuple[int, ...]:
        """The shape of a field or input field in a batch of training."""
        shape = {**self.fields, **self.inputs}[name].shape
        return (
            shape if name not in self.patched else (*(self.patch or ()), *shape[len(self.grid) :])
        )

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def size(self) -> int:
        """Number of predicted values in one step, all fields together."""
        return sum(spec.size for spec in self.fields.values())

    @property
    def input_size(self) -> int:
        """Number of values of all input fields together."""
        return sum(spec.size for spec in self.inputs.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""

        def describe(specs: Mapping[str, Field]) -> dict[str, Any]:
            return {
                name: {
                    "shape": list(spec.shape),
                    "role": spec.role,
                    "unit": spec.unit,
                    "components": spec.components,
                }
                for name, spec in specs.items()
            }

        return {
            "parameters": [
                {"name": p.name, "low": p.low, "high": p.high, "distribution": p.distribution}
                for p in self.parameters
            ],
            "fields": describe(self.fields),
            "inputs": describe(self.inputs),
            "t_range": None if self.t_range is None else list(self.t_range),
            "window": self.window,
            "stride": self.stride,
            "patch": None if self.patch is None else list(self.patch),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Problem:
        """Back from `to_dict`."""
        t_range = values.get("t_range")
        return cls(
            parameters=tuple(Parameter(**p) for p in values["parameters"]),
            fields={name: Field(**spec) for name, spec in values["fields"].items()},
            inputs={name: Field(**spec) for name, spec in values.get("inputs", {}).items()},
            t_range=None if t_range is None else (t_range[0], t_range[1]),
            window=int(values.get("window", 1)),
            stride=int(values.get("stride", 1)),
            patch=values.get("patch"),
        )
