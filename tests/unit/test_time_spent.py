"""Seconds by what they went to, and the sums that are made of them."""

from __future__ import annotations

import pytest
from trainer_scripted import TickingClock

from penstock_server.time_spent import TimeSpent, activities, causes, shares, wait, waits

SPENT = {
    "start": 1.0,
    "compute": 6.0,
    "gather": 0.5,
    wait("limiter", "solver"): 1.0,
    wait("empty", "solver"): 0.25,
    wait("empty", "reservoir"): 0.75,
    "snapshot": 0.25,
    "validate": 0.25,
}


def test_every_second_goes_to_exactly_one_name() -> None:
    clock = TickingClock(tick_s=0.0)
    spent = TimeSpent(clock)
    for name, seconds in (("compute", 6.0), (wait("empty", "solver"), 2.0), ("compute", 1.0)):
        clock.sleep(0.5)
        spent.on(name)
        clock.sleep(seconds - 0.5)
    clock.sleep(0.5)
    found = spent.so_far()
    assert found == {"start": 0.5, "compute": 7.0, "wait empty by solver": 2.0}
    assert sum(found.values()) == clock.seconds
    clock.sleep(1.0)
    assert spent.so_far()["compute"] == 8.0
    assert found["compute"] == 7.0  # a copy


def test_waits_are_summed_by_reason_and_by_cause() -> None:
    assert waits(SPENT) == {"limiter": 1.0, "empty": 1.0}
    assert causes(SPENT) == {"solver": 1.25, "reservoir": 0.75}
    assert activities(SPENT) == {
        "start": 1.0, "compute": 6.0, "gather": 0.5, "wait": 2.0, "snapshot": 0.25,
        "validate": 0.25,
    }  # fmt: skip


def test_shares_add_up_and_there_are_none_of_nothing() -> None:
    found = shares(SPENT)
    assert found == pytest.approx(
        {"compute": 0.6, "wait_data": 0.2, "validate": 0.025, "other": 0.175}
    )
    assert set(shares({}).values()) == {0.0}
    assert waits({}) == causes({}) == activities({}) == {}
