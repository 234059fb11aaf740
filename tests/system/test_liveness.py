"""Slow is not dead, stopped is: what the agents and the coordinator make of a silent worker."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from whole import Run, admissions, check_admissions, worker_pids, write_campaign

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        run.stop()


def hold(runs: list[Run], folder: Path, seconds: int) -> Run:
    """A campaign in which one step of one simulation holds the interpreter lock for so long."""
    campaign = write_campaign(
        folder, "--hold-gil-s", str(seconds), "--at-step", "10", simulations=1, validation=0,
        workers=1,
    )  # fmt: skip
    run = Run(
        campaign, "--set", f"solver.step_deadline_s={4 * seconds}", "--set", "liveness.silence_s=3"
    )
    runs.append(run)
    return run


def test_a_solver_that_holds_the_lock_for_long_is_not_taken_for_dead(
    tmp_path: Path, runs: list[Run]
) -> None:
    run = hold(runs, tmp_path, seconds=12)  # four times what silence would be allowed
    assert run.finish() == 0, run.output
    assert run.summary["simulations"]["retried"] == 0
    check_admissions(run.folder, simulations=1, steps=20)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_solver_that_holds_the_lock_for_five_minutes_is_not_taken_for_dead(
    tmp_path: Path, runs: list[Run]
) -> None:
    run = hold(runs, tmp_path, seconds=300)
    assert run.finish(800) == 0, run.output
    assert run.summary["simulations"]["retried"] == 0
    check_admissions(run.folder, simulations=1, steps=20)


def both_are_under_way(run: Run) -> bool:
    """Each worker is in the midst of a simulation, so that any that is stopped leaves one open."""
    found = [place for folder in run.runs.glob("*/*") for place in admissions(folder)]
    steps = Counter(simulation for simulation, *_ in found)
    return sum(1 <= count < 15 for count in steps.values()) == 2


def test_a_worker_that_was_stopped_is_given_up_and_its_simulation_repeated(
    tmp_path: Path, runs: list[Run]
) -> None:
    run = Run(write_campaign(tmp_path, "--delay-ms", "60", simulations=8))
    runs.append(run)
    run.wait_for(lambda: both_are_under_way(run))
    os.kill(worker_pids(run)[0], signal.SIGSTOP)
    assert run.finish() == 0, run.output
    assert run.summary["simulations"]["retried"] >= 1
    assert "SIGSTOP" in json.dumps(run.summary["faults"]) + run.output
    check_admissions(run.folder, simulations=11, steps=20)
