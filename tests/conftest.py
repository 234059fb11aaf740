"""What all tests share: a quiet environment, and the interpreter that sees DOLFINx."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

# Before numpy, torch and ray are imported anywhere: two cores are shared by everything.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Tests marked `solvers` run in the interpreter with DOLFINx, else they are skipped."""
    marked = [item for item in items if item.get_closest_marker("solvers")]
    if not marked:
        return
    from penstock_server.interpreters import find_interpreter, find_starter

    interpreter = find_interpreter()
    if interpreter.sees_dolfinx and find_starter(interpreter) is not None:
        os.environ.setdefault("PENSTOCK_SOLVER_PYTHON", interpreter.path)
        return
    reason = "no interpreter has DOLFINx with an MPI; `penstock doctor` says how to get them"
    for item in marked:
        item.add_marker(pytest.mark.skip(reason=reason))
