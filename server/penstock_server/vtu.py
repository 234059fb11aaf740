"""Fields on a uniform grid as a VTU file that ParaView opens; `predict` calls it.

A campaign knows shapes and no coordinates: the grid fills the unit box, and the last axis of the
array is x, as in the pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import numpy.typing as npt

CELLS = {1: "line", 2: "quad", 3: "hexahedron"}
# The corners of a cell, as offsets in x, y, z, in the order that VTK has for CELLS.
CORNERS = {
    1: ((0,), (1,)),
    2: ((0, 0), (1, 0), (1, 1), (0, 1)),
    3: ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)),
}

Array = npt.NDArray[Any]


def has_cells(shape: tuple[int, ...]) -> bool:
    """Whether a grid of this shape has cells: one to three axes of two points or more."""
    return len(shape) in CELLS and min(shape) > 1


def write(path: Path, shape: tuple[int, ...], fields: Mapping[str, Array]) -> None:
    """Writes the fields, each (*shape) or (*shape, components); the file appears complete."""
    points, cells = uniform_grid(shape)
    values = {name: _at_points(array, len(points)) for name, array in fields.items()}
    part = path.with_name(f"{path.name}.part")
    mesh = meshio.Mesh(points, [(CELLS[len(shape)], cells)], point_data=values)
    mesh.write(part, file_format="vtu")
    part.replace(path)


def uniform_grid(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Points (n, 3) over the unit box and cells (m, 2 ** axes), for up to three axes."""
    axes = [np.linspace(0.0, 1.0, n) for n in shape]
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape))
    points = np.zeros((len(mesh), 3))
    points[:, : len(shape)] = mesh[:, ::-1]
    index = np.arange(len(mesh)).reshape(shape)
    corners = [
        index[tuple(slice(o, n - 1 + o) for o, n in zip(offsets[::-1], shape, strict=True))].ravel()
        for offsets in CORNERS[len(shape)]
    ]
    return points, np.stack(corners, axis=1)


def _at_points(values: Array, n_points: int) -> Array:
    """(n,), or (n, 3) for a vector of two or three components, as VTK wants vectors."""
    flat = values.reshape(n_points, -1)
    if flat.shape[1] == 1:
        return np.ascontiguousarray(flat[:, 0])
    if flat.shape[1] == 2:
        return np.concatenate([flat, np.zeros((n_points, 1), flat.dtype)], axis=1)
    return flat
