"""A whole run, with a rank and a worker killed in it, replayed: the same weights to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from whole import Started, worker_pids, write_campaign

pytestmark = pytest.mark.timeout(240)


def test_a_run_with_deaths_in_it_is_replayed_to_the_bit(tmp_path: Path, start: Started) -> None:
    campaign = write_campaign(tmp_path, "--delay-ms", "10", ranks=2)
    run = start(campaign)
    run.wait_for(lambda: run.batches() > 5)
    os.kill(run.pids()["rank-1"], signal.SIGKILL)
    os.kill(worker_pids(run)[0], signal.SIGKILL)
    assert run.finish() == 0, run.output
    original = run.folder

    command = [sys.executable, "-m", "penstock.command", "replay", str(original), "--plain"]
    done = subprocess.run(
        [*command, "--runs", str(tmp_path / "replays")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "batches: the same, SHA-256" in done.stdout
    assert "weights: the same to the bit" in done.stdout
