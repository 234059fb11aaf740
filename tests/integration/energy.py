"""An admission check, as a user would write one; found by a receiver on PYTHONPATH."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt


def bounded(
    fields: Mapping[str, npt.NDArray[np.float32]], t: float, parameters: Mapping[str, float]
) -> str | None:
    """The mean square may grow with the parameter a, and not beyond."""
    energy = float(np.mean(np.square(fields["u"])))
    limit = (1000.0 * parameters["a"] + 100.0) ** 2
    return None if energy < limit else f"the energy is {energy:.3g} at t = {t:g}, above {limit:.3g}"
