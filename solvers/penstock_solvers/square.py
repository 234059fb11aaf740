"""The unit square cut into triangles, on any number of MPI ranks; used by the FEniCSx heat solvers.

`owned` is the one place where DOLFINx's own numbering meets the order of the sent field.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_solvers import compat
from penstock_solvers.heat_data import Array, boundary_masks, square_nodes


class Square:
    """P1 elements on (n-1) x (n-1) squares of two triangles each, n x n nodes.

    Rank r of R has the r-th of R strips of squares from bottom to top, always the same ones: a
    simulation that is run again gives the same numbers again.

    space    the scalar P1 space
    x, y     coordinates of the nodes of this rank, ghosts left out, in DOLFINx's order
    sides    local numbers of the boundary nodes of this rank
    owned    flat indices i*n + j of this rank's nodes in the n x n field, ascending
    """

    def __init__(self, comm: Any, n: int) -> None:
        if n < 2:
            raise ValueError(f"A grid needs at least 2 x 2 nodes; n = {n} was given.")
        if comm.size > n - 1:
            raise ValueError(
                f"{n} x {n} nodes have {n - 1} rows of squares, and {comm.size} MPI ranks were "
                "started. Use a larger n or fewer ranks."
            )
        self.comm, self.n = comm, n
        self.mesh = compat.create_mesh(comm, *_strip(n, comm.rank, comm.size))
        self.space = compat.lagrange(self.mesh)
        self.n_owned = self.space.dofmap.index_map.size_local
        points = self.space.tabulate_dof_coordinates()[: self.n_owned]
        self.x: Array = points[:, 0].copy()
        self.y: Array = points[:, 1].copy()
        on_side = np.any(boundary_masks(self.x, self.y), axis=0)
        self.sides: NDArray[np.int64] = np.flatnonzero(on_side)
        flat = np.rint(self.y * (n - 1)).astype(np.int64) * n
        flat += np.rint(self.x * (n - 1)).astype(np.int64)
        self._order = np.argsort(flat)
        self.owned: NDArray[np.int64] = flat[self._order]

    def field(self, values: Array) -> Array:
        """Owned nodal values (n_owned,) in the order of `owned`, as a fresh array.

        One rank owns everything and gets the field itself, (n, n).
        """
        ordered = values[: self.n_owned][self._order]
        return ordered.reshape(self.n, self.n) if self.comm.size == 1 else ordered


def _strip(n: int, rank: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """This rank's triangles (cells, 3), the rank beyond each one's edge, and points (points, 2)."""
    rows = np.arange((n - 1) * rank // size, (n - 1) * (rank + 1) // size)
    lower_left = (rows[:, None] * n + np.arange(n - 1)).ravel()
    a, b, c, d = lower_left, lower_left + 1, lower_left + n, lower_left + n + 1
    triangles = np.stack([a, b, d, a, c, d], axis=1).reshape(-1, 3).astype(np.int64)
    beyond = np.full((len(rows), n - 1, 2), rank, dtype=np.int64)
    beyond[0, :, 0] = max(rank - 1, 0)
    beyond[-1, :, 1] = min(rank + 1, size - 1)
    x, y = square_nodes(n)
    mine = slice(n * rank // size, n * (rank + 1) // size)
    return triangles, beyond.ravel(), np.stack([x[mine].ravel(), y[mine].ravel()], axis=1)
