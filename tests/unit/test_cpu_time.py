"""Core-seconds by what processes do, sampled from the process table."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from penstock_server.cpu_time import CpuTime

BUSY = (
    "import time; end = time.process_time() + 0.6\nwhile time.process_time() < end: pass\ninput()"
)


def test_a_process_tree_counts_for_its_group_and_what_ended_stays_counted() -> None:
    cpu = CpuTime()
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 30
        while cpu.seconds()["solvers"] < 0.3 and time.monotonic() < deadline:
            cpu.look({"solvers": [child.pid]})
            time.sleep(0.05)  # the process table has no event to wait for
        cpu.look({})  # it is given up, and has not ended yet
        assert cpu.seconds()["solvers"] >= 0.3
    finally:
        child.communicate(b"\n", timeout=30)
    cpu.look({})
    found = cpu.seconds()
    assert found["solvers"] >= 0.3
    assert found["training"] == 0
    assert found["server"] > 0  # this process
    assert found["all"] == pytest.approx(found["solvers"] + found["server"], abs=0.05)
