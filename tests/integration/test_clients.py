"""The clients in C, C++ and Fortran: each builds, and a program in it passes some of the kit.

All of the kit on all ranks is `make test-conformance`; here are one plain check, one with a fault
and one against the golden frames, where there are compilers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_server.interpreters import find_interpreter, find_starter

ROOT = Path(__file__).parents[2]
KIT = ROOT / "tests" / "conformance"
CHECKS = ("plain", "forgotten", "golden-fail")


def compiler(*names: str) -> None:
    """Skips the test where a program that it needs is missing."""
    for name in (*names, "make", "pkg-config"):
        if shutil.which(name) is None:
            pytest.skip(f"There is no {name} here.")
    if subprocess.run(["pkg-config", "--exists", "libzmq"], check=False).returncode:
        pytest.skip("There is no zmq.h here.")


def make(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["make", "-C", str(folder), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr, done.stderr


def play(
    *command: str, checks: tuple[str, ...] = CHECKS, ranks: tuple[str, ...] = ("1", "2")
) -> None:
    """Runs the kit's checks on the program."""
    only = [word for check in checks for word in ("--only", check)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(KIT / "run.py"), *only, "--ranks", *ranks, "--", *command],
        check=False, capture_output=True, text=True, env=environment, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_python_program_passes_the_kit() -> None:
    interpreter = find_interpreter()
    if find_starter() is None or not interpreter.mpi:
        pytest.skip("There is no interpreter here that sees an MPI.")
    play(interpreter.path, str(KIT / "programs" / "conformance.py"))


def test_a_c_program_with_sanitizers_passes_the_kit_on_one_rank(tmp_path: Path) -> None:
    compiler("cc")
    make(KIT, f"BUILD={tmp_path}", f"{tmp_path}/conformance_c")
    play(f"{tmp_path}/conformance_c", checks=("plain", "forgotten"), ranks=("1",))


@pytest.mark.slow
def test_a_fortran_program_passes_the_kit(tmp_path: Path) -> None:
    compiler("gfortran", "mpifort")
    make(ROOT / "clients" / "fortran", f"BUILD={tmp_path}", f"{tmp_path}/conformance")
    play(f"{tmp_path}/conformance")


@pytest.mark.slow
def test_a_cpp_program_passes_the_kit(tmp_path: Path) -> None:
    compiler("g++", "mpicxx")
    make(KIT, f"BUILD={tmp_path}", f"{tmp_path}/conformance_cpp")
    play(f"{tmp_path}/conformance_cpp")


def test_the_kit_notices_a_program_that_does_nothing() -> None:
    done = subprocess.run(
        [sys.executable, str(KIT / "run.py"), "--only", "plain", "--ranks", "1", "--", "true"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "0 of 1 checks passed" in done.stdout
