"""The solver that the tests of the stream use: its content must be exact, its faults as asked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from penstock_solvers import stamp

pytestmark = pytest.mark.timeout(60)


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("PENSTOCK_COORDINATOR", None)
    return subprocess.run(
        [sys.executable, "-m", "penstock_solvers.stamp", *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_stamp_says_which_simulation_and_step_it_is() -> None:
    for simulation, step in [(0, 0), (7, 3), (2**20, 99_999)]:
        field = stamp.expected(simulation, step, 8).astype(np.float32)
        assert stamp.decode(field) == (simulation, step)


def test_a_stamp_survives_float32_unchanged() -> None:
    field = stamp.expected(123_457, 1001, 16)
    assert np.array_equal(field.astype(np.float32).astype(np.float64), field)


def test_two_steps_or_two_simulations_differ_in_every_row() -> None:
    base = stamp.expected(5, 5, 8)
    for other in (stamp.expected(5, 6, 8), stamp.expected(6, 5, 8)):
        assert np.all(np.any(base != other, axis=1))


def test_holding_the_interpreter_stops_the_other_threads() -> None:
    beats: list[float] = []
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.01):
            beats.append(time.monotonic())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        begin = time.monotonic()
        stamp.hold_interpreter(1.5)
        end = time.monotonic()
    finally:
        done.set()
        thread.join()
    during = [t for t in beats if begin + 0.05 < t < end - 0.05]
    assert end - begin >= 1.5
    assert len(during) <= 3, "the lock is given back at most between two naps of 0.9 s"


def test_it_runs_alone_to_the_end() -> None:
    assert run("--steps", "3").returncode == 0


def test_it_dies_when_asked() -> None:
    result = run("--die-at", "1")
    assert result.returncode == 17
    assert "asked to die at step 1 of simulation 0" in result.stderr


@pytest.mark.parametrize("fault", ["--wrong-shape-at", "--wrong-dtype-at", "--twice-at"])
def test_the_client_names_the_fault_in_a_run_alone(fault: str) -> None:
    result = run(fault, "2")
    assert result.returncode != 0
    assert "LayoutError" in result.stderr


def test_a_fault_can_be_kept_to_one_simulation() -> None:
    assert run("--die-at", "1", "--only-simulation", "3").returncode == 0
    assert run("--die-at", "1", "--only-attempt", "2").returncode == 0
