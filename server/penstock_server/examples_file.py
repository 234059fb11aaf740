"""examples.npz of a run: a few held-out simulations, truth beside prediction at a few times.

The validator writes it at the end of a run, the report reads it. With n simulations, k times and
p parameters the file holds, all loadable with `allow_pickle=False`:

    format              ()               "penstock-examples-1"
    fields              ()               JSON: name -> {unit, components, shape, stride}
    names               (p,)             parameters, in order
    batch               ()               int64: the network had trained on so many batches
    simulation          (n,)             int64
    role, reason        (n,)             "validation" or "test"; why it was chosen
    error               (n,)             nRMSE of the simulation, over all fields
    parameters          (n, p)           float64
    t, step             (n, k)           float64, int64; a simulation with fewer times ends in
                                         NaN and -1
    truth/NAME          (n, k, *shape)   float32, every stride-th cell of each axis of the grid
    prediction/NAME     (n, k, *shape)   float32
    curve_t             (n, s)           float64; only if there are fields without a grid:
    curve_truth/NAME    (n, s, c)        float32, their c components at up to CURVE_TIMES times
    curve_prediction/NAME
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # the report reads without torch
    from penstock_server.evaluation import Evaluation, Predictor, Trajectory
    from penstock_surrogates.problem import Field, Problem

FORMAT = "penstock-examples-1"
TIMES = 4
CURVE_TIMES = 400
MAX_BYTES = 4_000_000

Array = npt.NDArray[Any]


class ExamplesError(ValueError):
    """The file cannot be read; the text says why."""


@dataclass(frozen=True)
class Examples:
    """The content of the file."""

    batch: int
    names: tuple[str, ...]
    fields: Mapping[str, Mapping[str, Any]]  # unit, components, shape, stride
    simulation: Array  # (n,)
    role: tuple[str, ...]
    reason: tuple[str, ...]
    error: Array  # (n,)
    parameters: Array  # (n, p)
    t: Array  # (n, k)
    step: Array  # (n, k)
    truth: Mapping[str, Array]  # (n, k, *shape)
    prediction: Mapping[str, Array]
    curve_t: Array | None = None  # (n, s)
    curve_truth: Mapping[str, Array] = field(default_factory=dict)  # (n, s, c)
    curve_prediction: Mapping[str, Array] = field(default_factory=dict)


def choose(evaluation: Evaluation) -> dict[int, tuple[str, float]]:
    """Up to three simulations -> (why, nRMSE over all fields): median, 95th percentile, largest."""
    errors = simulation_errors(evaluation)
    ranked = sorted(errors, key=lambda simulation: (errors[simulation], simulation))
    n, reasons = len(ranked), dict[int, list[str]]()
    for reason, place in (
        ("median error", (n - 1) // 2),
        ("95th percentile", math.ceil(0.95 * n) - 1),
        ("largest error", n - 1),
    ):
        reasons.setdefault(ranked[place], []).append(reason)
    return {sim: (" and ".join(whys), errors[sim]) for sim, whys in reasons.items()}


def simulation_errors(evaluation: Evaluation) -> dict[int, float]:
    """simulation -> root mean square of its fields' nRMSE."""
    each = [errors.simulations for errors in evaluation.per_field.values()]
    return {
        simulation: math.sqrt(sum(one[simulation] ** 2 for one in each) / len(each))
        for simulation in each[0]
    }


def collect(
    problem: Problem,
    trajectories: Sequence[Trajectory],
    evaluation: Evaluation,
    predict: Predictor,
    batch: int,
    max_bytes: int = MAX_BYTES,
) -> Examples:
    """The examples of one role; `evaluation` is the network's on these trajectories."""
    chosen = choose(evaluation)
    by_id = {trajectory.simulation: trajectory for trajectory in trajectories}
    shown = [by_id[simulation] for simulation in chosen]
    predictions = [predict(trajectory) for trajectory in shown]
    n, k = len(shown), min(TIMES, max(len(trajectory.t) for trajectory in shown))
    stride = _stride(problem, 2 * 4 * n * k, max_bytes)
    steps = [_few_steps(len(trajectory.t)) for trajectory in shown]

    def thinned(spec: Field, per_simulation: Sequence[Mapping[str, Any]], name: str) -> Array:
        cut = _cut(spec, stride)
        rows = []
        for values, at in zip(per_simulation, steps, strict=True):
            rows.append(_padded(values[name].cpu().numpy()[at][(slice(None), *cut)], k))
        return np.stack(rows).astype(np.float32)

    truths = [trajectory.fields for trajectory in shown]
    plain = {name: spec for name, spec in problem.fields.items() if not _axes(spec)}
    at = [_even(len(trajectory.t), CURVE_TIMES) for trajectory in shown]
    length = max(len(one) for one in at)

    def curves(spec: Field, per_simulation: Sequence[Mapping[str, Any]], name: str) -> Array:
        rows = [
            _padded(values[name].cpu().numpy()[one].reshape(len(one), spec.components), length)
            for values, one in zip(per_simulation, at, strict=True)
        ]
        return np.stack(rows).astype(np.float32)

    return Examples(
        batch=batch,
        names=problem.parameter_names,
        fields={
            name: {
                "unit": spec.unit,
                "components": spec.components,
                "shape": list(spec.shape),
                "stride": stride if _axes(spec) else 1,
            }
            for name, spec in problem.fields.items()
        },
        simulation=np.array(list(chosen), dtype=np.int64),
        role=tuple(trajectory.role for trajectory in shown),
        reason=tuple(reason for reason, _ in chosen.values()),
        error=np.array([error for _, error in chosen.values()]),
        parameters=np.stack([trajectory.parameters.cpu().double().numpy() for trajectory in shown]),
        t=np.stack(
            [
                _padded(trajectory.t.cpu().double().numpy()[at], k)
                for trajectory, at in zip(shown, steps, strict=True)
            ]
        ),
        step=np.stack(
            [
                np.pad(trajectory.step.cpu().numpy()[at], (0, k - len(at)), constant_values=-1)
                for trajectory, at in zip(shown, steps, strict=True)
            ]
        ),
        truth={name: thinned(spec, truths, name) for name, spec in problem.fields.items()},
        prediction={
            name: thinned(spec, predictions, name) for name, spec in problem.fields.items()
        },
        curve_t=np.stack(
            [
                _padded(trajectory.t.cpu().double().numpy()[one], length)
                for trajectory, one in zip(shown, at, strict=True)
            ]
        )
        if plain
        else None,
        curve_truth={name: curves(spec, truths, name) for name, spec in plain.items()},
        curve_prediction={name: curves(spec, predictions, name) for name, spec in plain.items()},
    )


def write(path: Path, examples: Examples) -> None:
    """The file appears complete or not at all."""
    arrays: dict[str, Any] = {
        "format": np.array(FORMAT),
        "fields": np.array(json.dumps({n: dict(spec) for n, spec in examples.fields.items()})),
        "names": np.array(examples.names, dtype=np.str_),
        "batch": np.array(examples.batch, dtype=np.int64),
        "simulation": examples.simulation,
        "role": np.array(examples.role),
        "reason": np.array(examples.reason),
        "error": examples.error,
        "parameters": examples.parameters,
        "t": examples.t,
        "step": examples.step,
    }
    for kind in KINDS:
        arrays |= {f"{kind}/{name}": array for name, array in getattr(examples, kind).items()}
    if examples.curve_t is not None:
        arrays["curve_t"] = examples.curve_t
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(path)


DAMAGE = (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)
KINDS = ("truth", "prediction", "curve_truth", "curve_prediction")


def read(path: Path) -> Examples:
    """Raises ExamplesError for a damaged file or one of another format; OSError as open does."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Array] = {name: file[name] for name in file.files}
        found = str(arrays.get("format"))
        if found != FORMAT:
            raise ExamplesError(
                f"{path} should have the format {FORMAT!r}, but it says {found!r}; use the "
                "version of penstock that wrote it."
            )
        grouped: dict[str, dict[str, Array]] = {kind: {} for kind in KINDS}
        for name, array in arrays.items():
            kind, slash, own = name.partition("/")
            if slash and kind in grouped:
                grouped[kind][own] = array
        examples = Examples(
            batch=int(arrays["batch"]),
            names=tuple(str(name) for name in arrays["names"]),
            fields=json.loads(str(arrays["fields"])),
            simulation=arrays["simulation"],
            role=tuple(str(role) for role in arrays["role"]),
            reason=tuple(str(reason) for reason in arrays["reason"]),
            error=arrays["error"],
            parameters=arrays["parameters"],
            t=arrays["t"],
            step=arrays["step"],
            curve_t=arrays.get("curve_t"),
            **grouped,
        )
        for name in examples.fields:
            if examples.truth[name].shape != examples.prediction[name].shape:
                raise ExamplesError(f"{path} is damaged: truth and prediction of {name} differ.")
    except ExamplesError:
        raise
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise ExamplesError(f"{path} is damaged or no such file: {error}.") from error
    return examples


def _axes(spec: Field) -> tuple[int, ...]:
    """The grid: all axes but the components'."""
    return spec.shape[:-1] if spec.components > 1 else spec.shape


def _cut(spec: Field, stride: int) -> tuple[slice, ...]:
    return tuple(slice(None, None, stride) for _ in _axes(spec))


def _stride(problem: Problem, bytes_per_cell: int, max_bytes: int) -> int:
    """The least one, the same for all grids, with which all fields fit together."""
    longest = max((length for spec in problem.fields.values() for length in _axes(spec)), default=1)
    stride = 1
    while stride < longest:
        cells = sum(
            spec.components * math.prod(-(-length // stride) for length in _axes(spec))
            for spec in problem.fields.values()
        )
        if cells * bytes_per_cell <= max_bytes:
            break
        stride += 1
    return stride


def _few_steps(n: int) -> Array:
    """Up to TIMES of n steps, from the tenth part of the way to the end."""
    return np.unique(np.linspace(max(0, n // 10 - 1), n - 1, TIMES).round().astype(int))


def _even(n: int, most: int) -> Array:
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def _padded(values: Array, length: int) -> Array:
    """(m, ...) -> (length, ...), the rest NaN."""
    rest = np.full((length - len(values), *values.shape[1:]), np.nan)
    return np.concatenate([values, rest])
