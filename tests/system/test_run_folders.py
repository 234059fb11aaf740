"""Run folders that cannot be used: the disk is full or read only, or somebody else runs there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import SmallDisk, wait_for_end
from test_campaigns import leftovers
from whole import Run, Started, check_admissions, check_audit, children_of, write_campaign

from penstock_server import checkpoint, run_folder
from penstock_server.report.files import read_history

pytestmark = pytest.mark.timeout(300)
START_S = 120.0  # Ray takes its time on a busy machine


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """What runs/ stands on; the test is skipped where there can be none."""
    missing = SmallDisk.missing(tmp_path)
    if missing:
        pytest.skip(missing)
    made = SmallDisk(tmp_path / "runs", 24)
    yield made
    made.close()


def has_checkpoint(run: Run) -> bool:
    return any(checkpoint.newest_intact(f) for f in run.runs.glob("*/*/checkpoints"))


def said_by(run: Run, before: str) -> str:
    """What a run has printed since; runs of one campaign share a file."""
    return run.output.removeprefix(before)


@pytest.mark.slow
def test_a_full_disk_ends_a_run_in_a_sentence_and_it_is_resumed_when_there_is_room(
    tmp_path: Path, start: Started, disk: SmallDisk
) -> None:
    campaign = write_campaign(tmp_path, "--delay-ms", "10", simulations=60)
    run = start(campaign)
    run.wait_for(lambda: has_checkpoint(run) and run.batches() > 50, START_S)
    family = children_of(run.process.pid)
    disk.fill()
    assert wait_for_end(run.process, disk, 90) == 1, run.output
    assert "Traceback" not in run.output, run.output
    assert "disk of the run folder" in run.output and "--resume" in run.output, run.output
    assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
    assert not leftovers(run)

    said = run.output
    told = (run.folder / "campaign.toml").read_text()
    still_full = start(campaign, "--resume", str(run.folder))
    assert wait_for_end(still_full.process, disk, 60) == 1, still_full.output
    assert "Traceback" not in said_by(still_full, said), said_by(still_full, said)
    assert "disk of the run folder" in said_by(still_full, said)
    assert (run.folder / "campaign.toml").read_text() == told

    disk.clear()
    again = start(campaign, "--resume", str(run.folder))
    assert again.finish(120) == 0, again.output
    assert again.summary["simulations"]["completed"] == 63
    assert again.summary["samples"]["trained_unique"] == 1200
    check_audit(again.folder)
    assert read_history(again.folder / "history.csv")


def test_a_read_only_disk_is_named(tmp_path: Path, start: Started, disk: SmallDisk) -> None:
    campaign = write_campaign(tmp_path)
    earlier = run_folder.create(disk.folder, "stamp")
    earlier.campaign.write_text(campaign.read_text())
    disk.make_read_only()
    new = start(campaign)
    assert new.finish(60) == 1
    assert "cannot be made: Read-only file system" in new.output
    said = new.output
    resumed = start(campaign, "--resume", str(earlier.root))
    assert resumed.finish(60) == 1
    assert "Read-only file system" in said_by(resumed, said)
    assert "Traceback" not in resumed.output


@pytest.mark.slow
def test_a_second_supervisor_on_a_running_folder_is_refused_and_disturbs_nothing(
    tmp_path: Path, start: Started
) -> None:
    campaign = write_campaign(tmp_path, "--delay-ms", "20", simulations=150)
    run = start(campaign)
    run.wait_for(lambda: run.batches() > 10, START_S)
    pids = run.pids()
    second = start(campaign, "--resume", str(run.folder))
    assert second.finish(60) == 1
    assert "in use by another supervisor" in run.output
    assert f"process {run.process.pid} " in run.output
    assert run.process.poll() is None
    assert run.pids() == pids
    assert run.finish() == 0, run.output
    assert run.summary["simulations"]["retried"] == 0
    check_admissions(run.folder, simulations=153, steps=20)
    assert not leftovers(run)
