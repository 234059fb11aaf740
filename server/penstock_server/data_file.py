"""A data set while it is written, in the format of DATA.md; the keeper's, and nobody else's.

HDF5 makes the file once, with every array contiguous and allocated; after that only plain writes
at known offsets touch it, so that whoever is killed leaves a file that can be read, and a full disk
is an error of one write.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from penstock_server.dataset import FORMAT

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DataLayout:
    """What the file will hold; `rows` has the number of simulations of each role."""

    campaign: str
    run: str
    toml: str
    parameters: list[str]
    rows: dict[str, int]
    steps: int  # the most that a simulation has
    fields: dict[str, dict[str, Any]]  # name -> shape, dtype, role, unit, components
    inputs: dict[str, dict[str, Any]]


class Column:
    """One array of the file; written by index."""

    def __init__(self, entry: h5py.Dataset) -> None:
        self.shape, self.dtype = entry.shape, entry.dtype
        self._offset = int(entry.id.get_offset() or 0)
        self._strides = _strides(entry)

    def write(self, file: int, index: tuple[int, ...], values: Array) -> int:
        """Puts values at the index, everything below it or a run of its last axis; bytes."""
        at = self._offset + sum(i * s for i, s in zip(index, self._strides))
        return _write(file, np.ascontiguousarray(values, dtype=self.dtype), at)


class DataFile:
    """Created, or found as an earlier keeper left it."""

    def __init__(self, path: Path, layout: DataLayout) -> None:
        self.path = path
        if not path.exists():
            _create(path, layout)
        self.rows: dict[str, dict[int, int]] = {}  # role -> simulation -> row
        self._columns: dict[str, dict[str, Column]] = {}
        self._room: dict[str, int] = {}
        with h5py.File(path, "r") as file:
            for role, group in file.items():
                ids = group["simulation"][()]
                self.rows[role] = {int(i): row for row, i in enumerate(ids) if i >= 0}
                self._room[role] = len(ids)
                self._columns[role] = {
                    name: Column(entry)
                    for name, entry in [
                        *((k, group[k]) for k in group if k not in ("fields", "inputs")),
                        *((f"field.{k}", v) for k, v in group["fields"].items()),
                        *((f"input.{k}", v) for k, v in group["inputs"].items()),
                    ]
                }
        self._file = os.open(path, os.O_RDWR)

    def row(self, role: str, simulation: int, parameters: Array) -> int | None:
        """Where the simulation is to stand; None when the file has no row left."""
        rows = self.rows[role]
        if simulation in rows:
            return rows[simulation]
        if len(rows) == self._room[role]:
            return None
        row = rows[simulation] = len(rows)
        columns = self._columns[role]
        columns["parameters"].write(self._file, (row,), parameters)
        columns["simulation"].write(self._file, (row,), np.array([simulation]))
        return row

    def put(
        self,
        role: str,
        row: int,
        step: int,
        t: Array,
        fields: Mapping[str, Array],
        inputs: Mapping[str, Array],
    ) -> int:
        """Consecutive steps from `step` on, t (l,), fields (l, *shape); gives the bytes written."""
        columns = self._columns[role]
        written = 0
        for name, values in inputs.items():
            written += columns[f"input.{name}"].write(self._file, (row,), values)
        for name, values in fields.items():
            written += columns[f"field.{name}"].write(self._file, (row, step), values)
        columns["t"].write(self._file, (row, step), t)
        columns["stored"].write(self._file, (row, step), np.ones(len(t)))  # last: it counts now
        return written

    def end(self, role: str, simulation: int, n_steps: int) -> bool:
        """The simulation has so many steps; False if it has no row in this role."""
        row = self.rows[role].get(simulation)
        if row is None:
            return False
        self._columns[role]["n_steps"].write(self._file, (row,), np.array([n_steps]))
        return True

    def close(self) -> None:
        """Everything is on the disk; may be called twice."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1


def _create(path: Path, layout: DataLayout) -> None:
    part = path.with_name(f"{path.name}.part")
    with h5py.File(part, "w", libver="latest") as file:
        file.attrs["format"] = FORMAT
        file.attrs["campaign"], file.attrs["run"] = layout.campaign, layout.run
        file.attrs["toml"] = layout.toml
        file.attrs["parameters"] = json.dumps(layout.parameters)
        for role, n in layout.rows.items():
            group = file.create_group(role)
            group["simulation"] = np.full(n, -1, np.int64)
            group["n_steps"] = np.full(n, -1, np.int64)
            group["stored"] = np.zeros((n, layout.steps), np.uint8)
            group["parameters"] = np.zeros((n, len(layout.parameters)))
            group["t"] = np.full((n, layout.steps), np.nan)
            for kind, specs, leading in (
                ("fields", layout.fields, (n, layout.steps)),
                ("inputs", layout.inputs, (n,)),
            ):
                folder = group.create_group(kind)
                for name, spec in specs.items():
                    _allocate(folder, name, (*leading, *spec["shape"]), spec)
    part.replace(path)


def _allocate(folder: h5py.Group, name: str, shape: tuple[int, ...], spec: dict[str, Any]) -> None:
    """A contiguous array of which nothing is written: a hole in the file."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    h5py.h5d.create(
        folder.id,
        name.encode(),
        h5py.h5t.py_create(np.dtype(spec["dtype"])),
        h5py.h5s.create_simple(shape),
        creation,
    )
    for key in ("role", "unit", "components"):
        folder[name].attrs[key] = spec[key]


def _strides(entry: h5py.Dataset) -> tuple[int, ...]:
    strides, size = [], entry.dtype.itemsize
    for length in reversed(entry.shape):
        strides.append(size)
        size *= length
    return tuple(reversed(strides))


def _write(file: int, values: Array, offset: int) -> int:
    view = values.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        done += os.pwrite(file, view[done:], offset + done)
    return len(view)
