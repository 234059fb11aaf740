"""Stored data sets in whole campaigns: kept, produced, trained from, streamed again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from whole import N, Run, Started, write_campaign

from penstock_server.dataset import DataSet
from penstock_solvers.stamp import expected
from penstock_surrogates import load

pytestmark = pytest.mark.timeout(150)


def check_data(path: Path, simulations: int, steps: int, validation: int = 3) -> DataSet:
    """Every simulation is complete, with the values that it should have."""
    data = DataSet(path)
    found = [t for role in ("validation", "train") for t in data.trajectories(role)]
    assert sorted(t.simulation for t in found) == list(range(simulations + validation))
    for trajectory in found:
        assert len(trajectory.t) == steps
        for step, values in enumerate(trajectory.fields["stamp"].numpy()):
            assert np.array_equal(values, expected(trajectory.simulation, step, N).astype("f4"))
    return data


def test_what_is_kept_is_trained_on_offline_and_streamed_again(
    tmp_path: Path, start: Started
) -> None:
    campaign = write_campaign(tmp_path)
    online = start(campaign, "--set", "keep=all")
    assert online.finish() == 0, online.output
    made = online.folder  # `folder` of a Run is the newest one there
    check_data(made / "data.h5", simulations=30, steps=20)
    assert online.summary["bytes"]["written_fields"] >= 33 * 20 * N * N * 4

    offline = start(
        campaign,
        *("--set", "mode=offline", "--set", f"offline.dataset={made / 'data.h5'}"),
        *("--set", "design.simulations=10", "--set", "stop.batches=120"),
        *("--set", f"training.normalisation={made / 'model'}"),
    )
    assert offline.finish() == 0, offline.output
    summary = offline.summary
    assert (summary["mode"], summary["batches"], summary["why"]) == ("offline", 120, "batches")
    assert summary["samples"]["trained_unique"] == 200
    assert summary["samples"]["trained_total"] == 120 * 8
    assert summary["bytes"] == {"streamed": 0, "written_fields": 0}
    assert summary["validation"]["value"] is not None
    assert normalisation(offline.folder) == normalisation(made)

    command = f'["{{server}}", "-m", "penstock", "fill", "{made}"]'
    again = start(campaign, "--set", f"solver.command={command}", "--set", "design.simulations=10")
    assert again.finish() == 0, again.output
    assert again.summary["simulations"]["completed"] == 13
    assert again.summary["samples"]["admitted"] == 200


def normalisation(run: Path) -> dict[str, object]:
    return load(run / "model").normalisation.to_dict()


@pytest.mark.chaos
def test_a_killed_keeper_and_a_killed_supervisor_cost_no_step_of_a_data_set(
    tmp_path: Path, start: Started
) -> None:
    campaign = write_campaign(tmp_path, "--delay-ms", "10", simulations=60)
    run = start(campaign, "--set", "mode=store")
    run.wait_for(lambda: "keeper" in run.pids() and rows(run) > 5)
    os.kill(run.pids()["keeper"], signal.SIGKILL)
    before = rows(run)
    run.wait_for(lambda: rows(run) > before + 5)
    run.process.kill()
    run.process.wait()
    assert rows(run) < 63
    resumed = start(campaign, "--resume", str(run.folder), "--set", "mode=store")
    assert resumed.finish() == 0, resumed.output
    assert "simulations stand in the data set already" in resumed.output
    check_data(resumed.folder / "data.h5", simulations=60, steps=20)
    assert resumed.summary["model"] is None


def rows(run: Run) -> int:
    """Simulations of which something is stored."""
    path = next(iter(run.runs.glob("*/*/data.h5")), None)
    if path is None:
        return 0
    return sum(int((group.simulation >= 0).sum()) for group in DataSet(path).roles.values())


def test_a_data_set_of_another_design_is_refused_in_a_sentence(
    tmp_path: Path, start: Started
) -> None:
    campaign = write_campaign(tmp_path, simulations=4, validation=0)
    stored = start(campaign, "--set", "mode=store")
    assert stored.finish() == 0, stored.output
    other = start(
        campaign,
        *("--set", "mode=offline", "--set", f"offline.dataset={stored.folder / 'data.h5'}"),
        *("--set", "seed=99", "--set", "stop.batches=10"),
    )
    assert other.finish() == 1
    assert "has 0 of the campaign's 4 train simulations" in other.output
    assert "Traceback" not in other.output
