"""Mean and spread of what a shard's reservoir holds now, for the metrics; the reporter calls it.

Beside what was drawn (drawn.py) it tells whether a drift comes from what arrives and stays, or from
the draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penstock_server.slab import COMMITTED, Slab

EVERY_S = 2.0
MOST_STEPS = 20_000  # looked at; of more, every second slot, or every third, and so on
MOST_VALUES = 1 << 18  # of an input field: of its rows or, where one has more, in each


class Inside:
    """The newest look at one slab; old numbers are replaced as a whole, so any thread may read."""

    def __init__(self, slab: Slab, names: Sequence[str]) -> None:
        """names: of the parameters, in the slab's order."""
        self._slab, self._names = slab, tuple(names)
        self._due_s = 0.0
        self.counts: dict[str, float] = {}

    def look(self, now_s: float) -> None:
        """Renews `counts` when it is time to."""
        if now_s >= self._due_s:
            self._due_s = now_s + EVERY_S
            self.counts = contents(self._slab, self._names)


def contents(slab: Slab, names: Sequence[str]) -> dict[str, float]:
    """inside_mean_NAME and inside_std_NAME of parameters, t and input fields, of what is in store.

    Of parameters and t every step counts; of input fields each value, once a simulation. Nothing
    is said of t when no step has one (steady problems), nor of anything in an empty slab.
    """
    slots = np.flatnonzero(slab.descriptor["state"] == COMMITTED)
    stride = max(1, -(-len(slots) * slab.spec.segment_steps // MOST_STEPS))
    slots = slots[::stride]
    n_steps = slab.descriptor["n_steps"][slots].astype(np.int64)
    if not n_steps.sum():
        return {}
    values = slab.parameters[slots, : slab.spec.n_parameters]  # (slots, p)
    share = n_steps / n_steps.sum()
    mean = share @ values
    std = np.sqrt(share @ (values - mean) ** 2)
    found = dict(zip(names, zip(mean.tolist(), std.tolist(), strict=True), strict=True))
    t = slab.t[slots]  # (slots, steps); NaN where there is none
    t = t[np.isfinite(t)]
    if len(t):
        found["t"] = (float(t.mean()), float(t.std()))
    rows = np.unique(slab.descriptor["row"][slots])
    for name, array in slab.inputs.items():  # (rows, *shape)
        n_seen = max(1, MOST_VALUES // max(1, array[0].size))
        every = max(1, -(-array[0].size // MOST_VALUES))
        seen = array.reshape(len(array), -1)[rows[:: -(-len(rows) // n_seen)], ::every]
        found[name] = (float(seen.mean(dtype=np.float64)), float(seen.std(dtype=np.float64)))
    return {
        f"inside_{what}_{name}": value
        for name, both in found.items()
        for what, value in zip(("mean", "std"), both, strict=True)
    }
