"""A stored data set, read: complete simulations by role, mapped and never loaded whole.

The format is in DATA.md; `data_file` writes it. Called by the feed and the views of offline
training, `penstock fill`, and comparisons.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch

from penstock_server.evaluation import Trajectory
from penstock_surrogates.batch import Batch

FORMAT = "penstock-data-1"

Array = npt.NDArray[Any]


class DataSetError(RuntimeError):
    """The data set cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class FieldAbout:
    """What the file says of a field."""

    shape: tuple[int, ...]
    dtype: str
    role: str
    unit: str
    components: int


@dataclass(frozen=True)
class Group:
    """The arrays of one role, one row a simulation; `complete` are the rows that may be used."""

    simulation: Array  # (n,)
    n_steps: Array  # (n,)
    stored: Array  # (n, steps)
    parameters: Array  # (n, p)
    t: Array  # (n, steps)
    fields: Mapping[str, Array]  # name -> (n, steps, *shape), mapped
    inputs: Mapping[str, Array]  # name -> (n, *shape), mapped

    @property
    def complete(self) -> Array:
        """Rows of complete simulations, in the order of their ids."""
        steps = self.stored.shape[1]
        there = np.cumsum(self.stored != 0, axis=1)  # (n, steps)
        known = (self.simulation >= 0) & (self.n_steps > 0) & (self.n_steps <= steps)
        last = np.clip(self.n_steps - 1, 0, max(0, steps - 1))
        whole = known & (there[np.arange(len(last)), last] == self.n_steps)
        rows = np.flatnonzero(whole)
        return rows[np.argsort(self.simulation[rows], kind="stable")]


class DataSet:
    """A data.h5, open for reading."""

    def __init__(self, path: Path | str) -> None:
        """Raises DataSetError when it is none, or is damaged."""
        self.path = Path(path)
        try:
            with h5py.File(self.path, "r") as file:
                self._check_format(file)
                self.campaign = str(file.attrs["campaign"])
                self.parameter_names: list[str] = list(json.loads(str(file.attrs["parameters"])))
                self.about: dict[str, FieldAbout] = {}
                self.roles = {role: self._group(file[role]) for role in file}
        except FileNotFoundError as error:
            raise DataSetError(f"There is no data set {self.path}.") from error
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise DataSetError(
                f"{self.path} cannot be read as a data set: {error}. It is damaged, or was not "
                'written by Penstock (keep, mode = "offline" or "store").'
            ) from error

    def rows(self, role: str) -> Array:
        """The complete simulations of a role; none if the role is not in the file."""
        return self.roles[role].complete if role in self.roles else np.empty(0, dtype=np.int64)

    def find(self, role: str, points: Sequence[Mapping[str, float]]) -> list[int | None]:
        """The row of each point among the complete simulations of a role, by its parameters."""
        names = self.parameter_names
        group, known = self.roles.get(role), dict[bytes, int]()
        if group is not None:
            for row in self.rows(role)[::-1]:  # of equal points the first is taken
                known[np.ascontiguousarray(group.parameters[row]).tobytes()] = int(row)
        wanted = (np.array([p[name] for name in names], dtype=np.float64) for p in points)
        return [known.get(point.tobytes()) for point in wanted]

    def trajectory(self, role: str, row: int) -> Trajectory:
        """One simulation as a whole."""
        group = self.roles[role]
        n = int(group.n_steps[row])
        return Trajectory(
            simulation=int(group.simulation[row]),
            role=role,
            parameters=torch.from_numpy(group.parameters[row].copy()),
            t=torch.from_numpy(group.t[row, :n].copy()),
            step=torch.arange(n),
            fields={k: torch.from_numpy(np.array(v[row, :n])) for k, v in group.fields.items()},
            inputs={k: torch.from_numpy(np.array(v[row])) for k, v in group.inputs.items()},
        )

    def trajectories(self, role: str, rows: Sequence[int] | None = None) -> list[Trajectory]:
        """Whole simulations, all complete ones of the role unless rows are given."""
        chosen = self.rows(role) if rows is None else rows
        return [self.trajectory(role, int(row)) for row in chosen]

    def batches(self, role: str, n: int, rows: Sequence[int] | None = None) -> Iterator[Batch]:
        """Every step of the rows (of all, if none are given) once, up to n at a time, k = 1."""
        group = self.roles.get(role)
        if group is None:
            return
        chosen = np.asarray(self.rows(role) if rows is None else rows, dtype=np.int64)
        held = group.n_steps[chosen]
        row = np.repeat(chosen, held)
        step = np.concatenate([np.arange(k) for k in held]) if len(held) else np.empty(0, np.int64)
        for at in range(0, len(row), n):
            yield gather(group, row[at : at + n], step[at : at + n], 1)

    def _check_format(self, file: h5py.File) -> None:
        found = file.attrs.get("format")
        if found != FORMAT:
            raise DataSetError(
                f"{self.path} should have the format {FORMAT!r}, but it says {found!r}; use the "
                "version of Penstock that wrote it."
            )

    def _group(self, group: h5py.Group) -> Group:
        for name, entry in group["fields"].items():
            self.about[name] = _about(entry, 2)
        for name, entry in group["inputs"].items():
            self.about[name] = _about(entry, 1)
        return Group(
            **{
                name: group[name][()]
                for name in ("simulation", "n_steps", "stored", "parameters", "t")
            },
            fields={name: self._map(entry) for name, entry in group["fields"].items()},
            inputs={name: self._map(entry) for name, entry in group["inputs"].items()},
        )

    def _map(self, entry: h5py.Dataset) -> Array:
        """The array in the file; a contiguous one lies there as in memory."""
        offset = entry.id.get_offset()
        if offset is None:
            raise DataSetError(
                f"{entry.name} of {self.path} is not contiguous, so that it cannot be mapped; "
                "a repacked file has lost its layout."
            )
        end = offset + math.prod(entry.shape) * entry.dtype.itemsize
        if end > self.path.stat().st_size:
            raise DataSetError(f"{self.path} is shorter than it says: it was cut off.")
        if entry.size == 0:
            return np.empty(entry.shape, entry.dtype)
        return np.memmap(self.path, entry.dtype, "r", offset, entry.shape)


def gather(group: Group, row: Array, start: Array, window: int, stride: int = 1) -> Batch:
    """Samples of `window` steps, `stride` apart, from `start` on: row (b,), start (b,)."""
    offsets = start[:, None] + stride * np.arange(window)  # (b, k)
    rows = row[:, None]
    return Batch(
        parameters=torch.from_numpy(group.parameters[row]),
        t=torch.from_numpy(group.t[rows, offsets]),
        fields={n: torch.from_numpy(np.asarray(v[rows, offsets])) for n, v in group.fields.items()},
        simulation=torch.from_numpy(group.simulation[row]),
        step=torch.from_numpy(offsets.astype(np.int64)),
        inputs={n: torch.from_numpy(np.asarray(v[row])) for n, v in group.inputs.items()},
    )


def _about(entry: h5py.Dataset, leading: int) -> FieldAbout:
    return FieldAbout(
        tuple(entry.shape[leading:]),
        str(entry.dtype),
        str(entry.attrs["role"]),
        str(entry.attrs["unit"]),
        int(entry.attrs["components"]),
    )
