"""What the workers' time went to, as the coordinator sees it."""

from __future__ import annotations

import pytest
from coordinator_desk import Desk, ended, settings

ROOM = {"held": 0.0, "free_segments": 0.0}
LIMITER = {"held": 1.0, "free_segments": 12.0}


def spent(desk: Desk) -> dict[str, float]:
    found: dict[str, float] = desk.status()["workers_s"]
    return found


def wait(desk: Desk, seconds: float, given: dict[str, int], waits: bool, **counters: float) -> None:
    """Shard 0 keeps saying whether the assignment's worker is out of credit."""
    report = [[given["simulation"], given["lease"], 3, waits]]
    for _ in range(int(2 * seconds)):
        desk.report("0", progress=report, counters=counters)
        desk.wait(0.5, "a1", reporting=False)


def test_each_second_of_a_worker_goes_to_what_it_is_at() -> None:
    desk = Desk(settings(train=2))
    desk.report_all()
    desk.beat("a1", "idle")
    desk.wait(3.0, "a1")
    worker = desk.worker_of("a1")
    desk.say("hello", worker=worker, agent="a1")
    desk.wait(1.0, "a1")
    given = desk.next(worker)
    wait(desk, 4.0, given, False)
    wait(desk, 2.0, given, True, **ROOM)
    wait(desk, 1.0, given, True, **LIMITER)
    wait(desk, 0.5, given, False, **LIMITER)
    assert spent(desk) == {
        "starting": 3.0, "idle": 1.0, "computing": 4.5, "room": 2.0, "limiter": 1.0,
    }  # fmt: skip
    assert sum(spent(desk).values()) == desk.now
    assert desk.state.seconds()["computing", ""] == 4.5


def test_a_shard_that_is_held_and_full_has_no_room() -> None:
    desk = Desk(settings(train=2))
    given = desk.next(desk.started())
    wait(desk, 1.0, given, True, held=1.0, free_segments=0.0)
    assert spent(desk)["room"] == 1.0


def test_workers_that_are_gone_spend_nothing() -> None:
    desk = Desk(settings(train=3))
    worker = desk.started()
    desk.next(worker)
    desk.wait(2.0, "a1")
    desk.beat("a1", "left")
    before = spent(desk)
    desk.wait(5.0, reporting=True)
    assert spent(desk) == before


def test_what_clients_measured_is_added_up() -> None:
    desk = Desk(settings(train=3))
    worker = desk.started()
    told = {"seconds": 10.0, "credit": 2.0, "window": 1.0}
    first = desk.next(worker)
    second = desk.next(worker, {**ended(first), "time_s": told})
    third = desk.next(worker, {**ended(second), "time_s": told})
    desk.next(worker, ended(third))  # another client, which does not
    assert desk.status()["told_s"] == pytest.approx({"seconds": 20.0, "credit": 4.0, "window": 2.0})


@pytest.mark.parametrize("odd", [{"seconds": 5.0}, {"seconds": 5.0, "credit": -1.0, "window": 0.0}])
def test_half_a_measurement_is_left_out_and_the_worker_goes_on(odd: dict[str, float]) -> None:
    desk = Desk(settings(train=2))
    worker = desk.started()
    first = desk.next(worker)
    assert desk.next(worker, {**ended(first), "time_s": odd})["kind"] == "assignment"
    assert set(desk.status()["told_s"].values()) == {0.0}
