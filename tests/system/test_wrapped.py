"""A whole campaign on a program that knows nothing of Penstock, killed once on the way."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from whole import Run, Started, children_of, write_campaign

from penstock_server.dataset import DataSet

pytestmark = pytest.mark.timeout(150)

STEPS = 8
PROGRAM = """
import sys, time
import numpy as np
simulation = int(open("in.txt").read())
for step in range(8):
    time.sleep(0.05)
    np.save(f"out_{step}.npy", 100.0 * simulation + step + np.arange(64).reshape(8, 8) / 64)
"""


def test_a_campaign_runs_on_a_wrapped_program(tmp_path: Path, start: Started) -> None:
    program, memory = tmp_path / "box.py", tmp_path / "memory"
    template = tmp_path / "in.txt.template"
    program.write_text(PROGRAM)
    template.write_text("${simulation}\n")
    memory.mkdir()
    command = [
        "{python}", "-m", "penstock", "wrap", "--memory", str(memory), "--template", str(template),
        "--field", "stamp=out_*.npy", "--dt", "0.5", "--", "{python}", str(program), "${p}",
    ]  # fmt: skip
    campaign = write_campaign(tmp_path, steps=STEPS, simulations=12, validation=3)
    run = start(campaign, "--set", f"solver.command={json.dumps(command)}", "--set", "mode=store")
    run.wait_for(lambda: killed(boxes(run, program)))
    assert run.finish(120) == 0, run.output
    assert run.summary["simulations"]["completed"] == 15
    assert run.summary["simulations"]["retried"] >= 1
    assert run.summary["simulations"]["failed"] == 0  # the killed one was not to blame
    data = DataSet(run.folder / "data.h5")
    found = [t for role in ("validation", "train") for t in data.trajectories(role)]
    assert sorted(trajectory.simulation for trajectory in found) == list(range(15))
    for trajectory in found:
        np.testing.assert_allclose(trajectory.t, 0.5 * np.arange(STEPS))
        for step, values in enumerate(trajectory.fields["stamp"].numpy()):
            field = 100.0 * trajectory.simulation + step + np.arange(64).reshape(8, 8) / 64
            np.testing.assert_array_equal(values, field.astype("f4"))
    assert not list(memory.iterdir())


def killed(pids: list[int]) -> bool:
    """Whether the first of them was there to be killed."""
    try:
        os.kill(pids[0], signal.SIGKILL)
    except (IndexError, ProcessLookupError):
        return False
    return True


def boxes(run: Run, program: Path) -> list[int]:
    """The processes of the program itself, not of the wrappers and agents that name it too."""
    found = []
    for pid in children_of(run.process.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:2] == [str(program).encode()]:
            found.append(pid)
    return found
