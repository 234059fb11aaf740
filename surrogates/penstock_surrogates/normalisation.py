"""Constants that bring parameters, times and fields to order one, frozen before training.

The feed counts `Moments` over the first complete simulations, the ranks add them up, and
`Normalisation.from_moments` freezes them; trainer, validator and `load` encode and decode.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from penstock_surrogates.batch import Batch
from penstock_surrogates.problem import RESERVED, Parameter, Problem


@dataclass(frozen=True)
class Moments:
    """Count, mean, squared deviations and range of values, per component; `+` joins two.

    Deviations are kept from the mean, not from zero (Chan, Golub, LeVeque 1983): a pressure of
    101325 +- 0.01 Pa would lose its variance in a plain sum of squares.
    """

    count: int  # values per component
    mean: Tensor  # (c,) float64
    deviations: Tensor  # (c,) float64: sum of (value - mean)^2
    low: Tensor  # (c,) float64
    high: Tensor  # (c,) float64

    @classmethod
    def of(cls, values: Tensor, components: int = 1) -> Moments:
        """Of an array with any leading axes; more than one component are its trailing axis."""
        flat = values.detach().to("cpu", torch.float64).reshape(-1, components)
        if len(flat) == 0:
            return cls.none(components)
        mean = flat.mean(dim=0)
        low, high = flat.amin(dim=0), flat.amax(dim=0)
        return cls(len(flat), mean, (flat - mean).square_().sum(dim=0), low, high)

    @classmethod
    def none(cls, components: int = 1) -> Moments:
        """Of nothing: the neutral element of `+`."""
        zero = torch.zeros(components, dtype=torch.float64)
        return cls(0, zero, zero, zero + math.inf, zero - math.inf)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if count == 0:
            return self
        shift = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + shift * (other.count / count),
            deviations=self.deviations
            + other.deviations
            + shift.square() * (self.count * other.count / count),
            low=torch.minimum(self.low, other.low),
            high=torch.maximum(self.high, other.high),
        )

    @property
    def variance(self) -> Tensor:
        """Population variance, (c,)."""
        return self.deviations / max(self.count, 1)


def add_moments(parts: Iterable[Mapping[str, Moments]]) -> dict[str, Moments]:
    """Join what several shards counted, by name."""
    total: dict[str, Moments] = {}
    for part in parts:
        for name, moments in part.items():
            total[name] = total[name] + moments if name in total else moments
    return total


@dataclass(frozen=True)
class Scale:
    """x -> (x - offset) / width, per component."""

    offset: tuple[float, ...]
    width: tuple[float, ...]

    @classmethod
    def standard(cls, moments: Moments) -> Scale:
        """Mean zero, deviation one; a component that does not vary keeps its unit."""
        deviation = moments.variance.sqrt()
        rounding = 1e-14 * moments.mean.abs()
        width = torch.where(deviation > rounding, deviation, torch.ones_like(deviation))
        return cls(tuple(moments.mean.tolist()), tuple(width.tolist()))


class Normalisation(nn.Module):
    """Frozen constants as buffers (float64), which follow the model to its device.

    Parameters go from their box to [-1, 1] (log-uniform ones by their logarithm), t from its
    range to [0, 1], fields and input fields to mean zero and deviation one per component over
    the training data. Encoded values have `dtype`.
    """

    low: Tensor
    high: Tensor
    logarithmic: Tensor
    t_low: Tensor
    t_width: Tensor

    def __init__(
        self,
        parameters: Iterable[Parameter],
        t_range: tuple[float, float],
        scales: Mapping[str, Scale],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.parameters_in_order = tuple(parameters)
        self.t_range = (float(t_range[0]), float(t_range[1]))
        self.scales = dict(scales)
        self.dtype = dtype

        def constant(values: Iterable[float]) -> Tensor:
            return torch.tensor(list(values), dtype=torch.float64)

        ends = [
            (math.log(p.low), math.log(p.high)) if p.logarithmic else (p.low, p.high)
            for p in self.parameters_in_order
        ]
        self.register_buffer("low", constant(low for low, _ in ends))
        self.register_buffer("high", constant(high for _, high in ends))
        logarithmic = torch.tensor(
            [p.logarithmic for p in self.parameters_in_order], dtype=torch.bool
        )
        self.register_buffer("logarithmic", logarithmic)
        width = self.t_range[1] - self.t_range[0]
        self.register_buffer("t_low", torch.tensor(self.t_range[0], dtype=torch.float64))
        self.register_buffer("t_width", torch.tensor(width or 1.0, dtype=torch.float64))
        for number, scale in enumerate(self.scales.values()):
            # A single component applies to every axis; several are the trailing one.
            self.register_buffer(f"offset{number}", constant(scale.offset))
            self.register_buffer(f"width{number}", constant(scale.width))

    @classmethod
    def from_moments(
        cls, problem: Problem, moments: Mapping[str, Moments], dtype: torch.dtype = torch.float32
    ) -> Normalisation:
        """Freeze what was counted; the key "t" holds the moments of the times."""
        scales = {}
        for name in (*problem.fields, *problem.inputs):
            if name not in moments or moments[name].count == 0:
                raise ValueError(
                    f"Normalisation needs values of the field {name!r}, but none were counted; "
                    f"wait for the first complete simulation."
                )
            scales[name] = Scale.standard(moments[name])
        t_range = problem.t_range
        if t_range is None:
            times = moments.get(RESERVED, Moments.none())
            low, high = float(times.low.min()), float(times.high.max())
            t_range = (low, high) if math.isfinite(low) and math.isfinite(high) else (0.0, 0.0)
        return cls(problem.parameters, t_range, scales, dtype)

    def encode(self, batch: Batch) -> Batch:
        """A batch of physical values -> the same batch normalised."""
        return replace(
            batch,
            parameters=self.encode_parameters(batch.parameters),
            t=self.encode_t(batch.t),
            fields=self.encode_fields(batch.fields),
            inputs=self.encode_fields(batch.inputs),
        )

    def scale_parameters(self, parameters: Tensor) -> Tensor:
        """(..., p) physical -> (..., p) float64, [-1, 1] inside the box."""
        if parameters.shape[-1] != len(self.parameters_in_order):
            names = ", ".join(p.name for p in self.parameters_in_order)
            raise ValueError(
                f"Expected {len(self.parameters_in_order)} parameters ({names}) on the last axis, "
                f"but the shape is {tuple(parameters.shape)}."
            )
        values = parameters.to(torch.float64)
        logarithms = torch.where(self.logarithmic, values, 1.0).log()
        values = torch.where(self.logarithmic, logarithms, values)
        width = self.high - self.low
        centred = 2 * (values - self.low) / torch.where(width > 0, width, 1.0) - 1
        return torch.where(width > 0, centred, 0.0)

    def encode_parameters(self, parameters: Tensor) -> Tensor:
        """(b, p) physical -> (b, p)."""
        return self.scale_parameters(parameters).to(self.dtype)

    def encode_t(self, t: Tensor) -> Tensor:
        """(b, k) physical -> (b, k), [0, 1] inside the range; a steady problem's t is 0."""
        scaled = (t.to(torch.float64) - self.t_low) / self.t_width
        return torch.nan_to_num(scaled, nan=0.0).to(self.dtype)

    def encode_fields(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fields or input fields, physical -> standardised."""
        encoded = {}
        for name, values in fields.items():
            offset, width = self._constants(name, values.dtype)
            encoded[name] = ((values - offset) / width).to(self.dtype)
        return encoded

    def decode_fields(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fields as the network gives them -> physical."""
        decoded = {}
        for name, values in fields.items():
            offset, width = self._constants(name, values.dtype)
            decoded[name] = values * width + offset
        return decoded

    def _constants(self, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if name not in self.scales:
            raise ValueError(
                f"There is no normalisation for the field {name!r}; the fields are "
                f"{', '.join(self.scales)}."
            )
        number = list(self.scales).index(name)
        offset: Tensor = getattr(self, f"offset{number}")
        width: Tensor = getattr(self, f"width{number}")
        return offset.to(dtype), width.to(dtype)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; floats survive the round trip to the bit."""
        return {
            "parameters": [
                {"name": p.name, "low": p.low, "high": p.high, "distribution": p.distribution}
                for p in self.parameters_in_order
            ],
            "t_range": list(self.t_range),
            "fields": {
                name: {"offset": list(scale.offset), "width": list(scale.width)}
                for name, scale in self.scales.items()
            },
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalisation:
        """Back from `to_dict`."""
        scales = {
            name: Scale(tuple(scale["offset"]), tuple(scale["width"]))
            for name, scale in values["fields"].items()
        }
        dtype = {"float32": torch.float32, "float64": torch.float64}[values["dtype"]]
        low, high = values["t_range"]
        return cls((Parameter(**p) for p in values["parameters"]), (low, high), scales, dtype)
