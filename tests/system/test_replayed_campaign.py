"""A whole run, with a rank and a worker killed in it, replayed: the same weights to the bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from whole import Started, check_replay, worker_pids, write_campaign

pytestmark = pytest.mark.timeout(240)


def test_a_run_with_deaths_in_it_is_replayed_to_the_bit(tmp_path: Path, start: Started) -> None:
    campaign = write_campaign(tmp_path, "--delay-ms", "10", ranks=2)
    run = start(campaign)
    run.wait_for(lambda: run.batches() > 5)
    os.kill(run.pids()["rank-1"], signal.SIGKILL)
    os.kill(worker_pids(run)[0], signal.SIGKILL)
    assert run.finish() == 0, run.output
    check_replay(run.folder, tmp_path / "replays")
