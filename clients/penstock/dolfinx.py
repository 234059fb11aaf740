"""The owned part of a DOLFINx function; called by FEniCSx solvers. Imports nothing of DOLFINx."""

from __future__ import annotations

from typing import Any

import numpy as np


def owned(u: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values and flat global indices of the degrees of freedom that this rank owns.

    Ghosts are dropped and blocked spaces (vectors) unrolled. Returns (values, indices), both of
    length n_owned * block_size; `indices` is what `link.layout(..., owned=indices)` takes for a
    field of shape (n_global * block_size,), or (n_global, block_size) in C order.
    """
    dofmap = u.function_space.dofmap
    block = int(dofmap.index_map_bs)
    n_owned = int(dofmap.index_map.size_local)
    first = int(dofmap.index_map.local_range[0])
    values = np.asarray(u.x.array)[: n_owned * block]
    return values, np.arange(first * block, (first + n_owned) * block, dtype=np.int64)
