"""Whole campaigns on this machine: the main job, faults of the solver, ends and leftovers."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import time
import urllib.request
from pathlib import Path

import pytest
from whole import Run, Started, check_admissions, children_of, worker_pids, write_campaign

from penstock_server.draw_log import draw_log_path, read_draws

pytestmark = pytest.mark.timeout(150)


def leftovers(run: Run) -> list[str]:
    folder = json.dumps(str(run.folder))
    found = [p.name for p in Path("/dev/shm").glob("penstock-*") if folder in _owner(p)]
    return found + [str(pid) for pid in children_of(run.process.pid)]


def _owner(path: Path) -> str:
    file = path / "run"
    return json.dumps(file.read_text()) if file.exists() else ""


def test_a_campaign_runs_to_its_end_and_says_what_it_did(tmp_path: Path, start: Started) -> None:
    run = start(write_campaign(tmp_path))
    assert run.finish() == 0, run.output
    summary = run.summary
    assert summary["simulations"]["completed"] == 33
    assert summary["samples"]["admitted"] == 600
    assert summary["samples"]["trained_unique"] == 600
    assert abs(summary["samples"]["trained_total"] - 1200) <= 16
    assert summary["samples"]["duplicates"] == 0
    assert summary["validation"]["value"] is not None
    assert summary["bytes"]["streamed"] == 33 * 20 * 8 * 8 * 4
    check_admissions(run.folder, simulations=33, steps=20)
    for name in ("campaign.toml", "history.csv", "model/model.safetensors", "picture.png"):
        assert (run.folder / name).exists(), name
    check_seconds(run)
    assert not leftovers(run)


def check_seconds(run: Run) -> None:
    """Activities, causes and reasons are the same seconds, cut differently."""
    summary = run.summary
    found, (rank,) = summary["attribution"], summary["attribution"]["ranks_s"]
    with (run.folder / "history.csv").open(newline="") as file:
        trained_s = float(list(csv.DictReader(file))[-1]["seconds"])
    # The clock of the history begins within "start", when the network has been built.
    assert sum(rank.values()) - rank["start"] < trained_s + 0.1
    assert sum(rank.values()) > trained_s - 0.1
    assert sum(found["waits_s"].values()) == pytest.approx(rank.get("wait", 0.0), abs=0.1)
    assert sum(summary["waits_s"].values()) == pytest.approx(rank.get("wait", 0.0), abs=0.1)
    assert 0 < sum(found["workers_s"].values()) <= summary["workers"] * summary["seconds"]
    assert found["side_by_side"]["seconds"] <= trained_s
    assert set(found["receivers_s"]) == {"0", "held-out"}
    assert summary["advice"] == found["advice"] != ""
    assert summary["advice"] in " ".join(re.sub("[│\n]", " ", run.output).split())


@pytest.mark.slow
def test_a_trainer_that_waits_is_told_how_many_workers_it_could_use(
    tmp_path: Path, start: Started
) -> None:
    run = start(write_campaign(tmp_path, "--delay-ms", "25", simulations=40, workers=1))
    assert run.finish() == 0, run.output
    said = re.fullmatch(
        r"Training waited (\d+) % of the time, because 1 worker produces (\d+|less than 1) % of "
        r"what it can use; (\d+) would do.*",
        run.summary["advice"],
    )
    assert said, run.summary["advice"]
    assert int(said[1]) > 50
    assert int(said[3]) > 1
    assert run.summary["advice"] in " ".join(re.sub("[│\n]", " ", run.output).split())


@pytest.mark.slow
def test_a_worker_and_a_rank_killed_once_each_lose_nothing(tmp_path: Path, start: Started) -> None:
    campaign = write_campaign(tmp_path, "--delay-ms", "5", simulations=60)
    run = start(campaign)
    run.wait_for(lambda: run.batches() > 10)
    os.kill(worker_pids(run)[0], signal.SIGKILL)
    before = run.batches()
    run.wait_for(lambda: run.batches() > before + 5)
    os.kill(run.pids()["rank-0"], signal.SIGKILL)
    assert run.finish() == 0, run.output
    assert run.summary["simulations"]["completed"] == 63
    assert run.summary["simulations"]["retried"] >= 1
    check_admissions(run.folder, simulations=63, steps=20)
    assert not leftovers(run)


@pytest.mark.parametrize(
    "victim",
    [
        "receiver-0",
        "coordinator",
        pytest.param("a1", marks=pytest.mark.slow),
        pytest.param("validator", marks=pytest.mark.slow),
    ],
)
def test_a_process_killed_in_the_middle_is_started_again(
    tmp_path: Path, start: Started, victim: str
) -> None:
    run = start(write_campaign(tmp_path, "--delay-ms", "5", simulations=40))
    run.wait_for(lambda: run.batches() > 10)
    os.kill(run.pids()[victim], signal.SIGKILL)
    assert run.finish() == 0, run.output
    assert run.summary["simulations"]["completed"] == 43
    check_admissions(run.folder, simulations=43, steps=20)
    assert not leftovers(run)


def test_every_process_serves_metrics(tmp_path: Path, start: Started) -> None:
    run = start(write_campaign(tmp_path, "--delay-ms", "20", simulations=60, ranks=2))
    run.wait_for(lambda: run.batches() > 20)
    served = {}
    for target in json.loads((run.folder / "metrics.json").read_text()):
        with urllib.request.urlopen(f"http://{target['targets'][0]}/metrics", timeout=5) as page:
            served[target["labels"]["process"]] = page.read().decode()
    assert set(served) == {
        "coordinator", "receiver-0", "receiver-1", "receiver-held-out", "rank-0", "rank-1",
        "validator",
    }  # fmt: skip
    assert "penstock_coordinator_simulations_completed" in served["coordinator"]
    assert 'penstock_receiver_unseen{shard="1"}' in served["receiver-1"]
    assert 'penstock_rank_batches{rank="1"}' in served["rank-1"]
    assert 'penstock_worker_seconds_total{activity="computing"' in served["coordinator"]
    assert 'penstock_receiver_seconds_total{activity="idle"' in served["receiver-0"]
    assert_every_second_is_counted(run, "rank-1")


def assert_every_second_is_counted(run: Run, process: str) -> None:
    """The counters of a rank go on as the clock on the wall."""
    began_s, began = newly_reported(run, process)
    time_s, total = began_s, began
    while time_s < began_s + 3.0:
        time_s, total = newly_reported(run, process)
    assert total - began == pytest.approx(time_s - began_s, rel=0.05)


def newly_reported(run: Run, process: str) -> tuple[float, float]:
    """When the seconds of a process next change, and what they come to."""
    targets = json.loads((run.folder / "metrics.json").read_text())
    (address,) = (t["targets"][0] for t in targets if t["labels"]["process"] == process)
    sums: list[float] = []

    def changed() -> bool:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as page:
            text = page.read().decode()
        samples = re.findall(r"^penstock_rank_seconds_total\{.*\} (\S+)$", text, re.MULTILINE)
        sums.append(sum(map(float, samples)))
        return len(sums) > 1 and sums[-1] != sums[-2]

    run.wait_for(changed)
    return time.monotonic(), sums[-1]


@pytest.mark.slow
def test_two_ranks_share_the_stream(tmp_path: Path, start: Started) -> None:
    run = start(write_campaign(tmp_path, ranks=2))
    assert run.finish() == 0, run.output
    assert run.summary["samples"]["trained_unique"] == 600
    check_admissions(run.folder, simulations=33, steps=20)


@pytest.mark.solvers
def test_mpi_workers_send_their_parts(tmp_path: Path, start: Started) -> None:
    run = start(write_campaign(tmp_path, mpi_ranks=2))
    assert run.finish() == 0, run.output
    check_admissions(run.folder, simulations=33, steps=20)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("--wrong-shape-at", "shape"),
        ("--twice-at", "twice"),
        pytest.param("--wrong-dtype-at", "complex", marks=pytest.mark.slow),
        pytest.param("--undeclared-at", "not declared", marks=pytest.mark.slow),
        pytest.param("--raise-at", "Error", marks=pytest.mark.slow),
    ],
)
def test_a_fault_of_one_simulation_is_named_and_the_campaign_lives(
    tmp_path: Path, start: Started, fault: str, said: str
) -> None:
    run = start(write_campaign(tmp_path, fault, "3", "--only-simulation", "7", simulations=12))
    assert run.finish() == 0, run.output
    simulations = run.summary["simulations"]
    assert (simulations["completed"], simulations["failed"]) == (14, 1)
    faults = json.dumps(run.summary["faults"])
    assert said in faults, faults
    assert '"simulation": 7' in faults


def test_a_field_with_nan_is_quarantined_and_not_retried(tmp_path: Path, start: Started) -> None:
    run = start(write_campaign(tmp_path, "--nan-at", "3", "--only-simulation", "7", simulations=12))
    assert run.finish() == 0, run.output
    assert run.summary["simulations"]["quarantined"] == 1
    assert run.summary["simulations"]["completed"] == 14
    faults = [f for f in run.summary["faults"] if f.get("simulation") == 7]
    assert len(faults) == 1 and "finite" in json.dumps(faults)


def test_a_solver_that_falls_silent_is_ended_and_named(tmp_path: Path, start: Started) -> None:
    campaign = write_campaign(
        tmp_path, "--silent-at", "3", "--only-simulation", "7", simulations=12
    )
    run = start(campaign, "--set", "solver.step_deadline_s=3", "--set", "solver.max_attempts=1")
    assert run.finish() == 0, run.output
    assert run.summary["simulations"]["failed"] == 1
    assert run.summary["simulations"]["completed"] == 14


def test_a_solver_that_dies_at_once_ends_the_campaign_with_its_own_words(
    tmp_path: Path, start: Started
) -> None:
    campaign = tmp_path / "dies.toml"
    text = write_campaign(tmp_path).read_text()
    command = 'command = ["{python}", "-c", "raise SystemExit(\'no mesh file here\')"]'
    lines = [command if line.startswith("command") else line for line in text.splitlines()]
    campaign.write_text("\n".join(lines))
    run = start(campaign)
    assert run.finish(60) == 1
    assert "no mesh file here" in run.output
    assert not leftovers(run)


def test_a_command_that_does_not_exist_is_refused_before_anything_starts(
    tmp_path: Path, start: Started
) -> None:
    campaign = write_campaign(tmp_path)
    run = start(campaign, "--set", 'solver.command=["./no-such-solver"]')
    assert run.finish(30) != 0
    assert "no-such-solver" in run.output


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, start: Started) -> None:
    run = start(write_campaign(tmp_path, "--delay-ms", "20", simulations=200))
    run.wait_for(lambda: run.batches() > 5)
    family = children_of(run.process.pid)
    run.process.send_signal(signal.SIGINT)
    assert run.finish(40) == 130, run.output
    assert not leftovers(run)
    assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]


def test_a_stop_at_a_number_of_batches_names_what_was_not_trained_on(
    tmp_path: Path, start: Started
) -> None:
    run = start(write_campaign(tmp_path, simulations=60), "--set", "stop.batches=20")
    assert run.finish() == 0, run.output
    summary = run.summary
    assert summary["batches"] == 20
    draws = read_draws(draw_log_path(run.folder, 0))
    unique = len(set(zip(draws["simulation"].tolist(), draws["step"].tolist())))
    assert (summary["samples"]["trained_total"], summary["batches"]) == (len(draws), 20)
    assert summary["samples"]["trained_unique"] == unique
    assert summary["samples"]["untrained_by_budget"] == summary["samples"]["admitted"] - unique


def test_a_run_whose_supervisor_was_killed_is_resumed_from_its_checkpoint(
    tmp_path: Path, start: Started
) -> None:
    campaign = write_campaign(tmp_path, "--delay-ms", "10", simulations=60)
    run = start(campaign)
    run.wait_for(lambda: any(run.runs.glob("*/*/checkpoints/checkpoint-0*[0-9]")))
    run.process.kill()
    run.process.wait()
    again = start(campaign, "--resume", str(run.folder))
    assert again.finish() == 0, again.output
    summary = again.summary
    assert summary["simulations"]["completed"] == 63
    assert summary["samples"]["trained_unique"] == 1200
