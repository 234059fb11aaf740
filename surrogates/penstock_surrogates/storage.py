"""A trained surrogate on disk: `save` is called by the trainer, `load` by whoever uses it.

A folder with model.safetensors (the weights) and model.json (network, problem, normalisation).
Loading needs torch and safetensors only.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from penstock_surrogates.normalisation import Normalisation
from penstock_surrogates.prediction import predict
from penstock_surrogates.problem import Problem
from penstock_surrogates.registry import build, name_of

FORMAT = "penstock-surrogate-1"
Values = float | Sequence[float] | Tensor


class TrainedSurrogate:
    """A surrogate in physical units: `surrogate.predict({"T0": 300, ...}, t=[0.5, 1.0])`."""

    def __init__(
        self,
        model: nn.Module,
        problem: Problem,
        normalisation: Normalisation,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model.eval()
        self.problem = problem
        self.normalisation = normalisation
        self.about = dict(about or {})  # what the trainer noted: campaign, batches, errors

    def to(self, device: torch.device | str) -> TrainedSurrogate:
        """Move to a device; returns itself."""
        self.model.to(device)
        self.normalisation.to(device)
        return self

    def predict(
        self,
        parameters: Mapping[str, Values],
        t: Values | None = None,
        inputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Fields in their units, name -> (k, *shape), or (b, k, *shape) for b sets of parameters.

        `parameters` holds one number a name, or b numbers for each name that varies; `t` holds
        the k times for all of them (or (b, k)), and is left out for a steady problem. Input
        fields have shape (*shape) or (b, *shape). Warns outside the box of the training data.
        """
        columns, batched = self._columns(parameters)
        b = len(columns)
        times = torch.as_tensor(0.0 if t is None else t, dtype=torch.float64)
        times = times.reshape(1, -1) if times.ndim < 2 else times
        batched = batched or len(times) > 1
        b = max(b, len(times))
        if len(columns) not in (1, b) or len(times) not in (1, b):
            raise ValueError(
                f"Times for {len(times)} and parameters for {len(columns)} simulations do not go "
                f"together; give t of shape (k,) or ({len(columns)}, k)."
            )
        given = {name: self._input(name, values, b) for name, values in (inputs or {}).items()}
        self._warn_outside(columns, times)
        device = self.normalisation.low.device
        fields = predict(
            self.model,
            self.normalisation,
            self.problem,
            columns.expand(b, -1).to(device),
            times.expand(b, -1).to(device),
            {name: values.to(device) for name, values in given.items()},
        )
        return fields if batched else {name: values[0] for name, values in fields.items()}

    __call__ = predict

    def _input(self, name: str, values: Tensor, b: int) -> Tensor:
        """An input field, given once or b times, as (b, *shape)."""
        values = torch.as_tensor(values)
        spec = self.problem.inputs.get(name)
        if spec is None:
            return values  # the prediction names what it needs
        if tuple(values.shape) == spec.shape:
            return values.expand(b, *spec.shape)
        if tuple(values.shape) != (b, *spec.shape):
            raise ValueError(
                f"The input field {name!r} should have shape {spec.shape} or "
                f"{(b, *spec.shape)}, but it has {tuple(values.shape)}."
            )
        return values

    def _columns(self, parameters: Mapping[str, Values]) -> tuple[Tensor, bool]:
        """(b, p) float64 in the problem's order, and whether b numbers were given for a name."""
        names = self.problem.parameter_names
        if set(parameters) != set(names):
            missing = [name for name in names if name not in parameters]
            unknown = [name for name in parameters if name not in names]
            raise ValueError(
                f"This surrogate needs the parameters {', '.join(names)}: "
                f"missing {', '.join(missing) or 'none'}, unknown {', '.join(unknown) or 'none'}."
            )
        columns = [torch.as_tensor(parameters[name], dtype=torch.float64) for name in names]
        sizes = {len(column) for column in columns if column.ndim == 1}
        if len(sizes) > 1 or any(column.ndim > 1 for column in columns):
            raise ValueError(
                "Each parameter should be one number or as many numbers as the others, but their "
                f"shapes are {', '.join(str(tuple(column.shape)) for column in columns)}."
            )
        b = sizes.pop() if sizes else 1
        if not columns:
            return torch.zeros(1, 0, dtype=torch.float64), False
        batched = any(column.ndim == 1 for column in columns)
        return torch.stack([column.expand(b) for column in columns], dim=1), batched

    def _warn_outside(self, columns: Tensor, times: Tensor) -> None:
        outside = []
        for parameter, values in zip(self.problem.parameters, columns.unbind(1), strict=True):
            if bool(((values < parameter.low) | (values > parameter.high)).any()):
                outside.append(f"{parameter.name} in [{parameter.low:g}, {parameter.high:g}]")
        low, high = self.normalisation.t_range
        margin = 1e-6 * (high - low)
        if high > low and bool(((times < low - margin) | (times > high + margin)).any()):
            outside.append(f"t in [{low:g}, {high:g}]")
        if outside:
            warnings.warn(
                f"The surrogate was trained with {', '.join(outside)}; outside, its prediction "
                f"is an extrapolation.",
                stacklevel=3,
            )


def save(
    path: str | Path,
    model: nn.Module,
    problem: Problem,
    normalisation: Normalisation,
    options: Mapping[str, Any],
    *,
    name: str | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write the folder `path`; each file appears complete or not at all.

    `options` made the model, `name` is its name in the registry (found from its class if not
    given), `about` anything JSON to remember with it.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    described = {
        "format": FORMAT,
        "surrogate": name or name_of(model),
        "options": dict(options),
        "problem": problem.to_dict(),
        "normalisation": normalisation.to_dict(),
        "about": dict(about or {}),
    }
    text = json.dumps(described, indent=2, allow_nan=False)
    weights = folder / "model.safetensors.part"
    save_model(model, str(weights))
    weights.replace(folder / "model.safetensors")
    config = folder / "model.json.part"
    config.write_text(text + "\n", encoding="utf-8")
    config.replace(folder / "model.json")


def load(path: str | Path, device: torch.device | str = "cpu") -> TrainedSurrogate:
    """Read what `save` wrote. A surrogate `module:Class` of your own is imported by that name."""
    folder = Path(path)
    missing = [n for n in ("model.json", "model.safetensors") if not (folder / n).is_file()]
    if missing:
        raise FileNotFoundError(
            f"A trained surrogate is a folder with model.json and model.safetensors, but "
            f"{folder} lacks {' and '.join(missing)}."
        )
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    if described.get("format") != FORMAT:
        raise ValueError(
            f"{folder / 'model.json'} should have the format {FORMAT!r}, but it says "
            f"{described.get('format')!r}; use the version of penstock that wrote it."
        )
    problem = Problem.from_dict(described["problem"])
    normalisation = Normalisation.from_dict(described["normalisation"])
    model = build(described["surrogate"], problem, described["options"]).to(normalisation.dtype)
    load_model(model, str(folder / "model.safetensors"))
    return TrainedSurrogate(model, problem, normalisation, described["about"]).to(device)
