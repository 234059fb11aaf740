"""The numpy solvers as programs of their own, without a campaign, in the server's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(
    "command",
    [
        ["heat_numpy", "--n", "9", "--steps", "3", "--T1", "400"],
        ["lorenz", "--steps", "5", "--rho", "28"],
        ["stamp", "--n", "4", "--steps", "2"],
    ],
    ids=lambda command: command[0],
)
def test_a_solver_runs_on_its_own(command: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("PENSTOCK_COORDINATOR", None)
    result = subprocess.run(
        [sys.executable, "-m", f"penstock_solvers.{command[0]}", *command[1:]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("solver", ["heat_numpy", "lorenz", "stamp"])
def test_help_describes_the_equation_and_the_options(solver: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", f"penstock_solvers.{solver}", "--help"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert "--steps" in result.stdout
    assert "Field `" in result.stdout
