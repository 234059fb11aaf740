"""The FEniCSx solvers under their own interpreter, on one and several MPI ranks."""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "tests" / "integration" / "solvers_runner.py"
PYTHON = os.environ.get("PENSTOCK_SOLVER_PYTHON", "/usr/bin/python3")
SINGLE = [PYTHON]

pytestmark = [pytest.mark.timeout(120), pytest.mark.solvers]


def environment(cache: Path | None = None) -> dict[str, str]:
    folders = [str(ROOT / name) for name in ("clients", "solvers")]
    result = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folders),
        "XDG_CACHE_HOME": str(cache or os.environ.get("XDG_CACHE_HOME") or ROOT / ".cache"),
        "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    result.pop("PENSTOCK_COORDINATOR", None)
    return result


def run(command: list[str], cache: Path | None = None) -> str:
    result = subprocess.run(
        command,
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def on_ranks(n: int) -> list[str]:
    if n == 1:
        return [PYTHON]
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        pytest.skip("mpirun is not on PATH; install an MPI to test on several ranks.")
    return [mpirun, "--oversubscribe", "-n", str(n), PYTHON]


@functools.cache
def runner(case: str, ranks: int = 1, repeat: int = 0) -> Any:
    return json.loads(run([*on_ranks(ranks), str(RUNNER), case]).splitlines()[-1])


@pytest.fixture(scope="module", autouse=True)
def _a_warm_cache() -> None:
    try:
        probe = subprocess.run(
            [PYTHON, "-c", "import dolfinx.fem.petsc, mpi4py, petsc4py"],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip(f"The solver interpreter {PYTHON} is missing; set PENSTOCK_SOLVER_PYTHON.")
    if probe.returncode != 0:
        lines = probe.stderr.strip().splitlines() or ["it said nothing"]
        pytest.skip(f"{PYTHON} cannot import DOLFINx ({lines[-1]}); set PENSTOCK_SOLVER_PYTHON.")
    run([PYTHON, "-m", "penstock_solvers.warm"])


def observed_orders(errors: list[float]) -> list[float]:
    return [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]


@pytest.mark.parametrize("solver", ["heat", "nonlinear"])
def test_elements_are_of_second_order_in_space(solver: str) -> None:
    orders = observed_orders(runner("orders")[f"{solver}-space"])
    assert orders == pytest.approx([2.0, 2.0], abs=0.12)


@pytest.mark.parametrize("solver", ["heat", "nonlinear"])
def test_implicit_euler_is_of_first_order_in_time(solver: str) -> None:
    orders = observed_orders(runner("orders")[f"{solver}-time"])
    assert orders == pytest.approx([1.0, 1.0], abs=0.1)


def test_elements_and_differences_differ_by_their_discretisation_errors() -> None:
    differences = runner("orders")["numpy"]
    assert differences[-1] < 0.5, "in K, of temperatures between 120 and 480 K"
    assert observed_orders(differences) == pytest.approx([2.0, 2.0], abs=0.15)


def test_the_steady_centre_is_the_mean_of_the_four_sides() -> None:
    assert runner("orders")["centre"] == pytest.approx(288.75, rel=1e-9)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("solver", ["lu", "cg+hypre", "cg+jacobi", "nonlinear"])
def test_every_number_of_ranks_gives_the_same_field(solver: str, ranks: int) -> None:
    alone = np.array(runner("fields")[solver]["field"])
    together = np.array(runner("fields", ranks)[solver]["field"])
    assert np.abs(together - alone).max() / np.abs(alone).max() < 1e-10


def test_all_linear_solvers_give_the_same_field() -> None:
    fields = runner("fields")
    for name in ("cg+hypre", "cg+jacobi"):
        assert np.allclose(fields[name]["field"], fields["lu"]["field"], rtol=1e-10, atol=0)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_second_run_gives_the_same_bits(ranks: int) -> None:
    first, second = runner("fields", ranks), runner("fields", ranks, repeat=1)
    for solver in first:
        assert first[solver]["digest"] == second[solver]["digest"], solver


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_compatibility_layer_works_with_this_dolfinx(ranks: int) -> None:
    found = runner("compat", ranks)
    assert (found["vectors"], found["vector"]) == (162, 25)
    assert found["points"] == [3, 2]
    assert (found["norm"], found["area"]) == (pytest.approx(1.0), pytest.approx(1.0))


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("solver", ["heat", "heat_nonlinear"])
def test_a_solver_runs_on_its_own(solver: str, ranks: int) -> None:
    command = [*on_ranks(ranks), "-m", f"penstock_solvers.{solver}"]
    run([*command, "--n", "9", "--steps", "3", "--T0", "200"])


def test_one_pass_fills_the_cache(tmp_path: Path) -> None:
    said = run([PYTHON, "-m", "penstock_solvers.warm"], cache=tmp_path)
    assert "is warm after 1 pass(es)" in said
    assert "was warm" in run([PYTHON, "-m", "penstock_solvers.warm"], cache=tmp_path)
