"""heat_nonlinear_numpy against the FEniCSx heat_nonlinear: the same problem, solved twice."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
from test_solvers_fenicsx import PYTHON, _a_warm_cache, run

__all__ = ["_a_warm_cache"]  # skips where there is no DOLFINx

pytestmark = [pytest.mark.timeout(120), pytest.mark.solvers]

RUNNER = Path(__file__).with_name("solvers_agree.py")


def test_elements_and_differences_come_together_on_finer_grids() -> None:
    found = json.loads(run([PYTHON, str(RUNNER)]).splitlines()[-1])
    common = [at_common_nodes for at_common_nodes, _ in found]
    assert common[-1] < 0.6, "in K, of temperatures between 120 and 480 K"
    # Not 2: the sides meet in corners with a jump.
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(common)]
    assert orders[0] > 0.8
    assert orders[1] > 1.2
    # Beside a corner the two treat the jump differently, on every grid alike.
    assert all(everywhere < 3.2 for _, everywhere in found)
