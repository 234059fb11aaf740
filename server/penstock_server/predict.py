"""A trained surrogate asked from the command line: fields to HDF5 and VTU, with a picture.

`penstock predict` calls it. Files appear complete or not at all.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError

from penstock_server import pictures, run_folder, vtu
from penstock_server.design import read_table
from penstock_surrogates import load
from penstock_surrogates.problem import Problem
from penstock_surrogates.storage import TrainedSurrogate

FORMAT = "penstock-prediction-1"

Array = npt.NDArray[Any]


class PredictError(RuntimeError):
    """Nothing can be predicted; the text says why and what to do."""


@dataclass(frozen=True)
class Prediction:
    """Fields in their units, b sets of parameters at k times."""

    problem: Problem
    parameters: dict[str, list[float]]  # name -> b values
    t: Array  # (k,)
    fields: dict[str, Array]  # name -> (b, k, *shape)
    warnings: list[str]
    about: Mapping[str, Any]

    @property
    def n(self) -> int:
        """The number b of parameter sets."""
        return len(next(iter(self.fields.values())))


def open_model(folder: Path) -> TrainedSurrogate:
    """The surrogate of a run's folder, or of a model's own folder. Raises PredictError."""
    model = folder / "model" if (folder / "campaign.toml").is_file() else folder
    if not (model / "model.json").is_file():
        raise PredictError(_why_no_model(folder))
    try:
        return load(model)
    except json.JSONDecodeError as error:
        raise PredictError(f"{model / 'model.json'} is damaged: {error}.") from error
    except SafetensorError as error:
        raise PredictError(f"{model / 'model.safetensors'} is damaged: {error}.") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise PredictError(f"The surrogate in {model} cannot be read: {error}") from error
    except (KeyError, TypeError) as error:
        raise PredictError(
            f"{model / 'model.json'} is damaged or from another version: {error!r} is wrong in it."
        ) from error


def _why_no_model(folder: Path) -> str:
    if not folder.is_dir():
        return (
            f"There is no folder {folder}. Give a run, such as runs/NAME/ID, or a model's folder."
        )
    if not (folder / "campaign.toml").is_file():
        return f"{folder} is neither a run nor a model: it has no campaign.toml and no model.json."
    if run_folder.reopen(folder).running:
        return (
            f"The run {folder} is still running, and its model is written at its end. Wait for it."
        )
    return (
        f"The run {folder} ended without a model. To go on with it: penstock run --resume {folder}"
    )


def parse_parameters(texts: Sequence[str], names: Sequence[str]) -> dict[str, list[float]]:
    """From "T0=300,T1=400" or several such texts to one value a name. Raises PredictError."""
    found: dict[str, list[float]] = {}
    for text in ",".join(texts).split(","):
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise PredictError(
                f"--params takes NAME=VALUE, separated by commas, got {text!r}. The parameters "
                f"are {', '.join(names)}."
            )
        if name in found:
            raise PredictError(f"--params gives {name} twice.")
        found[name] = [_number(value, f"--params {name}")]
    missing = [name for name in names if name not in found]
    unknown = [name for name in found if name not in names]
    if missing or unknown:
        raise PredictError(
            f"--params must give the parameters {', '.join(names) or 'none'}: missing "
            f"{', '.join(missing) or 'none'}, unknown {', '.join(unknown) or 'none'}."
        )
    return {name: found[name] for name in names}


def read_parameters(path: Path, names: Sequence[str]) -> dict[str, list[float]]:
    """The columns of a CSV whose header names the parameters. Raises PredictError, DesignError."""
    rows = read_table(path, names)
    if not rows:
        raise PredictError(f"{path} has a header and no rows; each row is one set of parameters.")
    return {name: [_number(row[name], f"{where}: {name}") for where, row in rows] for name in names}


def parse_times(text: str) -> list[float]:
    """From "0.1,0.5" to times. Raises PredictError."""
    return [_number(part.strip(), "--t") for part in text.split(",")]


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise PredictError(f"{where} must be a finite number, got {text!r}.")
    return value


def predict(
    surrogate: TrainedSurrogate,
    parameters: Mapping[str, Sequence[float]],
    t: Sequence[float] | None = None,
    n_times: int = 5,
) -> Prediction:
    """Fields for b sets of parameters at the times t, or at n_times times over the trained range.

    Raises PredictError for a surrogate that needs input fields, which a command line cannot give.
    """
    problem = surrogate.problem
    if problem.inputs:
        raise PredictError(
            f"This surrogate needs the input fields {', '.join(problem.inputs)}, which the command "
            "line cannot give. From Python: penstock_surrogates.load(path).predict(.., inputs=..)."
        )
    low, high = surrogate.normalisation.t_range
    times = (
        torch.tensor(t, dtype=torch.float64) if t else torch.linspace(low, high, n_times).double()
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fields = surrogate.predict(
            {
                name: torch.tensor(values, dtype=torch.float64)
                for name, values in parameters.items()
            },
            t=times,
        )
    b = max((len(values) for values in parameters.values()), default=1)
    arrays = {
        name: values.detach().cpu().numpy().reshape(b, len(times), *problem.fields[name].shape)
        for name, values in fields.items()
    }
    return Prediction(
        problem,
        {name: [float(value) for value in values] for name, values in parameters.items()},
        times.numpy(),
        arrays,
        [str(warning.message) for warning in caught],
        surrogate.about,
    )


def describe(prediction: Prediction, written: Sequence[Path]) -> list[str]:
    """What was predicted, and where it is."""
    lines = [f"{prediction.n} x {len(prediction.t)} predictions:"]
    for name, values in prediction.fields.items():
        unit = f" {prediction.problem.fields[name].unit}".rstrip()
        lines.append(f"  {name}: {float(values.min()):.6g} to {float(values.max()):.6g}{unit}")
    grids = [path for path in written if path.suffix == ".vtu"]
    lines += [f"  {path}" for path in written if path not in grids]
    return [*lines, f"  {len(grids)} files {grids[0].parent}/*.vtu"] if grids else lines


def write(prediction: Prediction, folder: Path) -> list[Path]:
    """prediction.h5, one .vtu a parameter set and time, picture.png; gives the paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [write_hdf5(prediction, folder / "prediction.h5")]
        written += write_vtu(prediction, folder)
        picture = draw(prediction, folder / "picture.png")
    except OSError as error:
        raise PredictError(f"The prediction cannot be written to {folder}: {error}.") from error
    return [*written, picture] if picture is not None else written


def write_hdf5(prediction: Prediction, path: Path) -> Path:
    """/t (k), /parameters/NAME (b), /fields/NAME (b, k, *shape) with its unit as an attribute."""
    part = path.with_name(f"{path.name}.part")
    with h5py.File(part, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["about"] = json.dumps(dict(prediction.about), default=str)
        file.attrs["warnings"] = json.dumps(prediction.warnings)
        file["t"] = prediction.t
        for name, values in prediction.parameters.items():
            file[f"parameters/{name}"] = np.asarray(values)
        for name, array in prediction.fields.items():
            file[f"fields/{name}"] = array
            file[f"fields/{name}"].attrs["unit"] = prediction.problem.fields[name].unit
    part.replace(path)
    return path


def write_vtu(prediction: Prediction, folder: Path) -> list[Path]:
    """One file for each set of parameters, time and grid; fields on the same grid share a file.

    Fields without an axis, or with more than three, are in HDF5 alone.
    """
    grids: dict[tuple[int, ...], list[str]] = {}
    for name, spec in prediction.problem.fields.items():
        shape = spec.shape[:-1] if spec.components > 1 else spec.shape
        if vtu.has_cells(shape):
            grids.setdefault(shape, []).append(name)
    written = []
    for shape, names in grids.items():
        for i in range(prediction.n):
            for j in range(len(prediction.t)):
                path = folder / f"{'-'.join(names)}_{i:04d}_{j:04d}.vtu"
                vtu.write(path, shape, {name: prediction.fields[name][i, j] for name in names})
                written.append(path)
    return written


def draw(prediction: Prediction, path: Path) -> Path | None:
    """The first field of one or two axes; None if there is none."""
    for name, spec in prediction.problem.fields.items():
        array = prediction.fields[name]
        if spec.components > 1:
            array = np.linalg.norm(array, axis=-1)
        if array.ndim in (3, 4):
            label = f"|{name}|" if spec.components > 1 else name
            label += f" ({spec.unit})" if spec.unit else ""
            pictures.draw_fields(path, array, prediction.t, label)
            return path
    return None
