"""Slopes of benchmarks/soak.py: what grows is seen over restarts, what only warms up is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from growth import Life, Sample, Watch, growth, look, pooled_slope

MB = 1 << 20


def life(start_s: float, minutes: float, mb: float, mb_per_h: float, warm_s: float = 30) -> Life:
    """30 MB more within its first warm_s seconds, then as told; a sample every 3 s."""
    rng = np.random.default_rng(int(start_s))
    made = Life(1, "rank")
    for age_s in np.arange(0, 60 * minutes, 3.0):
        memory = mb - 30 * max(0.0, 1 - age_s / warm_s) + mb_per_h * age_s / 3600
        memory += 0.5 * rng.standard_normal()
        made.samples.append(Sample(start_s + age_s, int(MB * memory), 0, 40, 4))
    return made


def test_a_leak_is_seen_though_every_restart_gives_it_back() -> None:
    lives = [life(300.0 * number, 5, 200, mb_per_h=24) for number in range(6)]
    found = growth("rank", lives, 60.0)
    assert found is not None
    assert found.memory_per_h == pytest.approx(24 * MB, rel=0.15)
    assert (found.lives, found.files_per_h) == (6, 0.0)


def test_a_new_process_that_is_larger_than_the_one_before_does_not_grow() -> None:
    lives = [life(0, 5, 150, 0), life(300, 5, 190, 0), life(600, 5, 230, 0)]
    found = growth("rank", lives, 60.0)
    assert found is not None
    assert abs(found.memory_per_h or 0.0) < 3 * MB


def test_warming_up_is_growth_only_to_those_who_do_not_wait() -> None:
    lives = [life(300.0 * number, 4, 200, 0, warm_s=120) for number in range(3)]
    hasty, patient = growth("rank", lives, 0.0), growth("rank", lives, 120.0)
    assert hasty is not None and patient is not None
    assert (hasty.memory_per_h or 0.0) > 100 * MB
    assert abs(patient.memory_per_h or 0.0) < 10 * MB


def test_the_first_quarter_of_a_long_life_is_not_judged() -> None:
    found = growth("rank", [life(0, 30, 200, 0, warm_s=400)], 60.0)
    assert found is not None
    assert abs(found.memory_per_h or 0.0) < 1 * MB


def test_one_step_up_among_many_lives_is_not_a_slope() -> None:
    flat = [[(float(s), 40.0) for s in range(0, 300, 3)] for _ in range(5)]
    stair = [(float(s), 40.0 + (s > 150)) for s in range(0, 300, 3)]
    assert pooled_slope([*flat, stair]) == 0.0
    every_life_steps = pooled_slope([stair] * 6)
    assert every_life_steps is not None and every_life_steps > 0


def test_a_life_of_one_sample_has_no_slope() -> None:
    assert pooled_slope([[(1.0, 40.0)], []]) is None
    assert growth("rank", [life(0, 0.5, 200, 0)], 60.0) is None


def test_a_process_is_watched_from_its_start_to_its_end(tmp_path: Path) -> None:
    held = "import sys; kept = bytearray(b'x') * (50 << 20); sys.stdout.write('y'); "
    child = subprocess.Popen(
        [sys.executable, "-c", held + "sys.stdout.flush(); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.read(1) == b"y"
    sample = look(child.pid)
    assert sample is not None
    assert 50 * MB < sample.memory < 100 * MB
    assert sample.files >= 3
    (tmp_path / "file").write_bytes(bytes(5000))
    watch = Watch(lambda: {child.pid: "child"}, lambda: {"files": [tmp_path]}, 0.01)
    watch.start()
    deadline = time.monotonic() + 10
    while len(watch.alive()) < 1 and time.monotonic() < deadline:
        os.sched_yield()
    child.stdin.close()
    child.wait(10)
    child.stdout.close()
    lives = watch.stop()
    assert {each.role for each in lives} == {"child", "files"}
    assert not watch.alive()
    assert look(child.pid) is None
    assert next(e for e in lives if not e.pid).samples[-1].memory >= 5000
