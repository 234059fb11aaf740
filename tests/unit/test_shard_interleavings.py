"""The shard under any order of messages, draws, deaths and crashes: each segment exactly once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_rehearsal import Rehearsal, Run, Setting


@st.composite
def settings_of(draw: st.DrawFn, crashes: bool, deaths: bool) -> Setting:
    length = draw(st.integers(1, 4))
    stride = draw(st.integers(1, 3))
    window = draw(st.integers(1, length))
    n_simulations = draw(st.integers(1, 4))
    return Setting(
        seed=draw(st.integers(0, 2**32 - 1)),
        steps=tuple(draw(st.integers(0, 9)) for _ in range(n_simulations)),
        n_slots=draw(st.integers(1, 6)),
        segment_steps=length,
        window=window,
        apart=draw(st.integers(1, max(1, (length - 1) // max(1, window - 1)))),
        position=draw(st.integers(0, stride - 1)),
        stride=stride,
        policy=draw(st.sampled_from(["reservoir", "fifo", "firo"])),
        inputs=draw(st.booleans()),
        crashes=crashes,
        deaths=deaths,
    )


def rehearse(factory: pytest.TempPathFactory, setting: Setting) -> Run:
    return Rehearsal(factory.mktemp("shard") / "shm", setting).play()


@settings(max_examples=60, deadline=None)
@given(settings_of(crashes=False, deaths=False))
def test_every_segment_is_admitted_once_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, setting: Setting
) -> None:
    run = rehearse(tmp_path_factory, setting)
    assert run.duplicates == 0


@settings(max_examples=40, deadline=None)
@given(settings_of(crashes=False, deaths=True))
def test_lost_workers_cost_nothing_that_was_admitted(
    tmp_path_factory: pytest.TempPathFactory, setting: Setting
) -> None:
    rehearse(tmp_path_factory, setting)


@settings(max_examples=80, deadline=None)
@given(settings_of(crashes=True, deaths=True))
def test_a_receiver_killed_at_any_line_loses_and_repeats_nothing(
    tmp_path_factory: pytest.TempPathFactory, setting: Setting
) -> None:
    rehearse(tmp_path_factory, setting)


def test_a_long_rehearsal_meets_crashes_deaths_and_repeats(tmp_path: Path) -> None:
    """The properties above would hold trivially if nothing ever happened."""
    setting = Setting(7, (40, 35, 30), 5, 3, 2, inputs=True, crashes=True, deaths=True)
    run = Rehearsal(tmp_path / "shm", setting).play()
    assert run.crashes > 5
    assert run.deaths > 1
    assert run.duplicates > 5
    assert run.refusals > 0


def test_long_rehearsals_of_single_steps_meet_bunches(tmp_path: Path) -> None:
    runs = [
        Rehearsal(
            tmp_path / f"shm-{seed}",
            Setting(seed, (60, 70), 12, stride=2, inputs=True, crashes=True, deaths=seed % 2 == 0),
        ).play()
        for seed in range(12)
    ]
    assert sum(run.crashes for run in runs) > 30
    assert sum(run.bunches for run in runs) > 10
    assert any(run.crashed_bunches for run in runs)
