"""Ranks held by a real Ray: killed, restarted, ended without a trace."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from ranks_feed import read_marks
from trainer_scripted import make_plan

from penstock_server.launch.ray_ranks import RankGroup
from penstock_surrogates import storage

HERE = Path(__file__).parent
DEADLINE_S = 60


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranks find their feed, and no token is needed."""
    known = filter(None, [os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *known]))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def make_group(folder: Path, ranks: int = 2, **feed: Any) -> RankGroup:
    for name in ("scratch", "logs"):
        (folder / name).mkdir(parents=True)
    plan = make_plan(folder, ranks=ranks, limits={"snapshot_batches": 25}, dtype="float64")
    plan = replace(plan, saving=replace(plan.saving, snapshots=folder / "scratch/snapshots"))
    settings = [
        {"n_batches": 200, "seed": rank, "marks": str(folder / f"marks-{rank}"), **feed}
        for rank in range(ranks)
    ]
    return RankGroup(
        plan, "ranks_feed:open_feed", settings, "", folder / "scratch", folder / "logs"
    )


@contextlib.contextmanager
def running(group: RankGroup) -> Iterator[RankGroup]:
    try:
        group.start()
        yield group
    finally:
        group.stop()


def poll_until(group: RankGroup, done: Callable[[], bool], seen: list[str] | None = None) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        messages = group.poll()
        if seen is not None:
            seen += messages
        assert time.monotonic() < deadline, (group, messages)
        time.sleep(0.01)


def weights_of(folder: Path) -> list[Any]:
    state = storage.load(folder / "model").model.state_dict()
    return [state[name].tolist() for name in sorted(state)]


@pytest.mark.slow
def test_a_rank_killed_in_the_middle_costs_nothing_but_time(tmp_path: Path) -> None:
    calm = make_group(tmp_path / "calm")
    with running(calm):
        poll_until(calm, lambda: calm.finished)

    folder = tmp_path / "killed"
    killed = make_group(folder, pace_s=0.005)
    seen: list[str] = []
    with running(killed):
        poll_until(killed, lambda: len(read_marks(folder / "marks-1")) > 60, seen)
        old = killed.pids
        os.kill(old[1], signal.SIGKILL)
        poll_until(killed, lambda: killed.finished, seen)
        assert not any(psutil.pid_exists(pid) for pid in old)
    assert killed.restarts == 1
    assert seen[0].startswith("Rank 1 died")
    assert "all ranks go back to the snapshot at batch" in seen[0]
    assert killed.outcome is not None
    assert (killed.outcome["batches"], killed.outcome["draws"]) == (200, 1600)
    assert weights_of(folder) == weights_of(tmp_path / "calm")

    assert not [p for p in psutil.Process().children(recursive=True) if "ray" in p.name()]
    assert not [p for p in Path("/dev/shm").iterdir() if p.name.startswith(("plasma", "torch"))]
    assert not list((folder / "scratch").glob("ray-*"))


def test_a_stopped_group_leaves_nothing_and_can_be_stopped_again(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    group = make_group(tmp_path, pace_s=0.01)
    with running(group):
        assert signal.getsignal(signal.SIGTERM) == handler
        poll_until(group, lambda: len(read_marks(tmp_path / "marks-0")) > 3)
        assert (tmp_path / "marks-0.denormal").read_text() == "0.0"
        pids = group.pids
    group.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not group.finished
    assert group.model is None


def test_an_error_of_a_ranks_own_ends_the_group_with_its_sentence(tmp_path: Path) -> None:
    group = make_group(tmp_path)
    group.feed_settings[1]["fails_at"] = 30
    with running(group):
        poll_until(group, lambda: group.failure is not None)
    assert group.restarts == 0
    assert group.failure is not None
    assert "Training failed on rank 1: ValueError: This shard is upside down." in group.failure
    assert "upside down" in (tmp_path / "logs/rank-1.log").read_text()


@pytest.mark.slow
def test_a_rank_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    group = make_group(tmp_path, dies_at=30)
    with running(group):
        poll_until(group, lambda: group.failure is not None)
    assert group.restarts == 3
    assert group.failure is not None
    assert "4th time without a new snapshot" in group.failure


@pytest.mark.slow
def test_a_rank_that_is_stopped_is_taken_for_lost_and_replaced(tmp_path: Path) -> None:
    group = make_group(tmp_path, pace_s=0.005)
    group.silence_s = 5.0
    seen: list[str] = []
    with running(group):
        poll_until(group, lambda: len(read_marks(tmp_path / "marks-1")) > 60, seen)
        stopped = group.pids[1]
        os.kill(stopped, signal.SIGSTOP)
        poll_until(group, lambda: group.finished, seen)
        assert not psutil.pid_exists(stopped)
    assert seen[0].startswith("Rank 0 lost the others; all ranks go back")
    assert group.outcome is not None
    assert group.outcome["draws"] == 1600
