"""Arrays out of files: npy, npz, CSV, HDF5, VTU; the last two by h5py and meshio where they are.

The one file of the client that imports more than numpy and pyzmq, when such a file is read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

NEEDS = {".h5": "h5py", ".hdf5": "h5py", ".vtu": "meshio", ".vtk": "meshio"}
TABLES = (".csv", ".txt", ".dat")
KNOWN = (".npy", ".npz", *TABLES, *NEEDS)


class FormatError(ValueError):
    """A file that cannot be read as what its name says; the text says why."""


def missing(suffix: str) -> str:
    """What keeps files of this kind from being read here, as a sentence; empty if nothing does."""
    if suffix not in KNOWN:
        return f"Files of the kind {suffix or '(no ending)'} are not read; {', '.join(KNOWN)} are."
    package = NEEDS.get(suffix)
    if package is None or find_spec(package) is not None:
        return ""
    return (
        f"{suffix} files are read by the package {package}, which {sys.executable} does not have: "
        f"{sys.executable} -m pip install {package}. In a campaign's command {{server}} is the "
        "interpreter of the server, which has it."
    )


def read(path: Path, select: str) -> np.ndarray:
    """The array of a file; `select` names it where there are several (columns of a CSV by comma).

    Raises FormatError when the file is not what its name says, or has no such array.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return np.asarray(arrays[_choice(select, list(arrays.files))])
        if suffix in TABLES:
            return _table(path, select)
        return _hdf5(path, select) if NEEDS[suffix] == "h5py" else _mesh(path, select)
    except FormatError as error:
        raise FormatError(f"{path.name}: {error}") from None
    except Exception as error:  # whatever a reader raises on a broken file
        raise FormatError(
            f"{path.name} cannot be read ({type(error).__name__}: {error}). If the program begins "
            "a file before the one before is complete, agree on a marker with --done."
        ) from error


def _table(path: Path, select: str) -> np.ndarray:
    """Rows by columns (n, m); a first line that holds no numbers has the columns' names."""
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    first = lines[0].lstrip("#") if lines else ""
    separator = next((mark for mark in ",;\t" if mark in first), None)
    cells = [cell.strip().strip('"') for cell in first.split(separator)]
    named = not all(map(_is_number, cells))
    rows = [line for line in lines[int(named) :] if not line.lstrip().startswith("#")]
    if not rows:
        raise FormatError("it has no row of numbers.")
    table = np.loadtxt(rows, delimiter=separator, ndmin=2)
    if not select:
        return table
    names = cells if named else [str(column) for column in range(table.shape[1])]
    columns = [names.index(_choice(name.strip(), names)) for name in select.split(",")]
    return np.asarray(table[:, columns])


def _hdf5(path: Path, select: str) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        return np.asarray(file[_choice(select.strip("/"), names)])


def _mesh(path: Path, select: str) -> np.ndarray:
    """Data at the points, else of the cells, in the file's order."""
    import meshio

    mesh = meshio.read(path)
    arrays: dict[str, Any] = {name: np.concatenate(v) for name, v in mesh.cell_data.items()}
    arrays.update(mesh.point_data)
    return np.asarray(arrays[_choice(select, list(arrays))])


def _choice(name: str, names: Sequence[str]) -> str:
    if not name and len(names) == 1:
        return names[0]
    if name in names:
        return name
    asked = f"has no {name!r}" if name else "holds several arrays"
    raise FormatError(f"it {asked}; put one of {', '.join(names) or 'none'} behind a colon.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def lengths(series: Mapping[str, np.ndarray]) -> int:
    """How many steps the arrays have on their first axis. Raises FormatError if they differ."""
    found = {name: len(array) if array.ndim else 1 for name, array in series.items()}
    if len(set(found.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in found.items())
        raise FormatError(f"The files do not have the same number of steps: {told}.")
    return next(iter(found.values()), 0)
