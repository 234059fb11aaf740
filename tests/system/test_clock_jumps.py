"""The wall clock jumps by hours under a whole campaign: nothing is taken for late or for silent.

Every Python process of the run, its solvers included, asks a clock that the test sets. What is in C
(libzmq, Ray's daemons) keeps the machine's own; libzmq asks the monotonic clock alone.
"""

from __future__ import annotations

import csv
import os
import signal
import struct
import time
from pathlib import Path

import pytest
from whole import Run, Started, check_admissions, worker_pids, write_campaign

pytestmark = pytest.mark.timeout(300)

HOUR_S = 3600
START_S = 120.0  # Ray takes its time on a busy machine

# Read by the interpreter before any other module; `seen` has a file for each process that did.
SITE = """
import mmap, os, pathlib, struct, time
folder = pathlib.Path(os.environ["JUMPING_CLOCK"])
(folder / "seen" / str(os.getpid())).touch()
with open(folder / "shift", "rb") as file:
    shift = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
time_s, time_ns = time.time, time.time_ns
def shift_s():
    return struct.unpack("<q", shift[:])[0]
time.time = lambda: time_s() + shift_s()
time.time_ns = lambda: time_ns() + shift_s() * 10**9
"""


class Clock:
    """The wall clock of all Python processes that inherit this environment."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "seen").mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(SITE)
        self._folder = folder
        self._shift = folder / "shift"
        self._shift.write_bytes(bytes(8))
        path = os.pathsep.join(p for p in (str(folder), os.environ.get("PYTHONPATH")) if p)
        monkeypatch.setenv("PYTHONPATH", path)
        monkeypatch.setenv("JUMPING_CLOCK", str(folder))

    def jump_to(self, shift_s: int) -> None:
        """So much later than it is; at once, for everybody."""
        with self._shift.open("r+b") as file:
            file.write(struct.pack("<q", shift_s))

    def asked_by(self, pid: int) -> bool:
        return (self._folder / "seen" / str(pid)).exists()


def history(run: Run) -> list[float]:
    """Seconds of training, row by row."""
    with (run.folder / "history.csv").open(newline="") as file:
        return [float(row["seconds"]) for row in csv.DictReader(file) if row["seconds"]]


@pytest.mark.slow
def test_hours_forwards_and_back_cancel_nothing(
    tmp_path: Path, start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path / "clock", monkeypatch)
    campaign = write_campaign(tmp_path, "--delay-ms", "20", simulations=80)
    began_s = time.monotonic()
    run = start(
        campaign,
        *("--set", "solver.step_deadline_s=20", "--set", "liveness.start_deadline_s=40"),
        *("--set", "liveness.coordinator_patience_s=60", "--set", "stop.seconds=150"),
    )
    run.wait_for(lambda: run.batches() > 10, START_S)
    everybody = {**run.pids(), **{f"solver {pid}": pid for pid in worker_pids(run)}}
    assert {name for name, pid in everybody.items() if not clock.asked_by(pid)} == set()
    assert len(everybody) >= 8

    for shift_h in (3, -5, 0):  # -5: with ranks and receivers from a later hour
        clock.jump_to(shift_h * HOUR_S)
        before = run.batches()
        run.wait_for(lambda before=before: run.batches() > before + 40)
        assert run.pids().items() >= {n: p for n, p in everybody.items() if " " not in n}.items()
    assert run.finish() == 0, run.output
    lasted_s = time.monotonic() - began_s

    summary = run.summary
    assert summary["simulations"]["completed"] == 83
    assert summary["simulations"]["retried"] == 0
    assert summary["why"] == "drained"
    assert summary["faults"] == []
    assert "silent" not in run.output
    seconds = history(run)
    assert seconds == sorted(seconds)
    assert 0 < seconds[-1] < lasted_s
    assert 0 < summary["seconds"] < lasted_s
    check_admissions(run.folder, simulations=83, steps=20)


@pytest.mark.slow
def test_who_is_started_again_in_an_earlier_hour_is_taken_for_the_newer_one(
    tmp_path: Path, start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path / "clock", monkeypatch)
    run = start(write_campaign(tmp_path, "--delay-ms", "20", simulations=60))
    run.wait_for(lambda: run.batches() > 10, START_S)
    for shift_h, victim in ((-2, "receiver-0"), (-4, "rank-0"), (-6, "coordinator")):
        clock.jump_to(shift_h * HOUR_S)
        pid, before = run.pids()[victim], run.batches()
        os.kill(pid, signal.SIGKILL)
        run.wait_for(
            lambda victim=victim, pid=pid: run.pids().get(victim) not in (None, pid)  # type: ignore[misc]
        )
        run.wait_for(lambda before=before: run.batches() > before)  # type: ignore[misc]
    assert run.finish() == 0, run.output
    assert run.summary["simulations"]["completed"] == 63
    assert run.summary["faults"] == []
    check_admissions(run.folder, simulations=63, steps=20)
