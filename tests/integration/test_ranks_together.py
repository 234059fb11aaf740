"""Two training ranks over gloo against one with the double batch, and ranks that lack data."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from penstock_surrogates import storage

PROGRAM = Path(__file__).with_name("ranks_program.py")
DEADLINE_S = 60


def start(folder: Path, world: int, **spec: Any) -> list[subprocess.Popen[str]]:
    meet = folder.parent / f"meet-{uuid.uuid4().hex}"
    specs = [
        {"rank": rank, "world": world, "meet": str(meet), "folder": str(folder), **spec}
        for rank in range(world)
    ]
    return [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(spec)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for spec in specs
    ]


def finish(processes: list[subprocess.Popen[str]], deadline_s: float) -> list[dict[str, Any]]:
    outcomes = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=deadline_s)
            assert process.returncode == 0, err
            outcomes.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in processes:
            process.kill()
    return outcomes


def train(folder: Path, world: int, deadline_s: float = DEADLINE_S, **spec: Any) -> Any:
    return finish(start(folder, world, **spec), deadline_s)


def difference(left: Path, right: Path) -> float:
    a, b = (storage.load(folder / "model").model.state_dict() for folder in (left, right))
    return max(float((a[name] - b[name]).abs().max() / b[name].abs().max()) for name in b)


def test_two_ranks_learn_what_one_with_the_double_batch_learns(tmp_path: Path) -> None:
    alone = start(tmp_path / "one", 1)
    both = train(tmp_path / "two", 2)
    one = finish(alone, DEADLINE_S)[0]
    assert [outcome["batches"] for outcome in [one, *both]] == [200, 200, 200]
    assert one["draws"] == both[0]["draws"] == 1600
    assert difference(tmp_path / "two", tmp_path / "one") < 1e-8
    calls = [[call for call in outcome["calls"] if call != ["drain"]] for outcome in both]
    assert calls[0] == calls[1]
    assert both[0]["seen"] > 0


def test_a_rank_whose_stream_ends_early_does_not_hang_the_other(tmp_path: Path) -> None:
    both = train(tmp_path, 2, keep=120)
    assert both[0]["taken"] == list(range(200))
    assert both[1]["taken"] == list(range(120))
    assert both[0]["draws"] == 4 * 320
    assert (both[0]["why"], both[1]["why"]) == ("drained", "drained")


def test_a_rank_that_never_gets_anything_does_not_hang_the_other(tmp_path: Path) -> None:
    both = train(tmp_path, 2, keep=0)
    assert both[0]["draws"] == 800
    assert both[1]["taken"] == []


def test_a_rank_that_starves_for_a_while_takes_part_again(tmp_path: Path) -> None:
    both = train(tmp_path, 2, starve_s=1.5, n_batches=400)
    assert both[0]["taken"] == both[1]["taken"] == list(range(400))
    assert both[0]["waits_s"]["starved rank"] == pytest.approx(0.5, abs=0.3)


@pytest.mark.slow
def test_after_a_restart_every_rank_knows_where_its_time_went(tmp_path: Path) -> None:
    """Both wait in the first training, and nothing is waited for in the one that goes on."""
    before = train(tmp_path, 2, starve_s=1.5, limits={"stop_batches": 100})[0]["ranks_s"]
    after = train(tmp_path, 2)[0]["ranks_s"]
    for earlier, rank in zip(before, after, strict=True):
        assert 0.3 < earlier["wait"] <= rank.get("wait", 0.0)


@pytest.mark.slow
def test_a_rank_that_starves_for_30_seconds_does_not_hang_the_other(tmp_path: Path) -> None:
    both = train(tmp_path, 2, deadline_s=100, starve_s=30.0, n_batches=400)
    assert both[0]["taken"] == both[1]["taken"] == list(range(400))
    # The other went on alone after its patience, and had nothing left to do long before.
    assert both[0]["waits_s"]["starved rank"] < 1
    assert both[0]["waits_s"]["empty"] > 20
