"""What is summed while training and production run side by side."""

from __future__ import annotations

from typing import Any

from penstock_server.steady import Steady


def status(
    seconds: float,
    *,
    state: str = "running",
    training: str = "training",
    over: bool = False,
    waited: float = 0.0,
    draws: int = 0,
    admitted: int = 0,
    workers: float = 0.0,
    busy: float | None = None,
) -> dict[str, Any]:
    spent = {"compute": seconds - waited, "wait empty by solver": waited}
    return {
        "state": state,
        "trainer": {
            "state": training, "over": over, "seconds": seconds, "draws": draws,
            "admitted": admitted, "time_s": spent,
        },
        "workers_s": {"computing": workers},
        "told_s": {"seconds": 0.0, "credit": 0.0, "window": 0.0},
        "shards": {
            "0": {"seconds": {} if busy is None else {"busy": busy, "idle": 100.0}},
            "held-out": {"seconds": {"busy": 1.0, "idle": 1.0}},
        },
    }  # fmt: skip


def fed(*statuses: dict[str, Any], solvers: tuple[float, ...] = ()) -> Steady:
    steady = Steady()
    for index, each in enumerate(statuses):
        steady.take(each, {"solvers": solvers[index] if solvers else 0.0})
    return steady


def test_only_the_time_side_by_side_is_summed() -> None:
    found = fed(
        status(5, training="waiting", admitted=90, workers=20),
        status(10, waited=1, draws=50, admitted=100, workers=40, busy=1.0),
        status(14, waited=2, draws=90, admitted=150, workers=56, busy=2.0),
        status(20, waited=3, draws=150, admitted=190, workers=80, busy=5.0),
        status(30, waited=9, draws=200, admitted=200, workers=90, busy=6.0, over=True),
        status(40, waited=9, draws=300, admitted=200, state="over", workers=90),
        solvers=(1.0, 2.0, 5.0, 8.0, 9.0, 9.0),
    )
    assert found.group("counts") == {"seconds": 10.0, "draws": 100.0, "admitted": 90.0}
    assert found.group("trainer") == {"compute": 8.0, "wait empty by solver": 2.0}
    assert found.group("workers") == {"computing": 40.0}
    assert found.group("cpu") == {"solvers": 6.0}
    assert found.receivers() == {"0": {"busy": 4.0, "idle": 0.0}}


def test_nothing_is_summed_of_a_run_that_never_ran_side_by_side() -> None:
    assert fed().group("counts") == {}
    assert fed(status(5, training="waiting"), status(9, over=True)).group("counts") == {}
    assert fed({"state": "running"}, {"state": "running", "trainer": None}).receivers() == {}


def test_a_difference_that_goes_back_is_left_out() -> None:
    """Ranks go back to a snapshot, or the coordinator starts with no worker's time."""
    found = fed(
        status(10, draws=50, workers=40),
        status(12, draws=60, workers=48),
        status(11, draws=55, workers=52),  # the ranks were started again
        status(13, draws=65, workers=60),
        status(14, draws=70, workers=1),  # and the coordinator
        status(15, draws=75, workers=5),
    )
    assert found.group("counts") == {"seconds": 5.0, "draws": 25.0, "admitted": 0.0}
    assert found.group("workers") == {"computing": 20.0}


def test_a_receiver_that_is_heard_of_for_the_first_time_has_no_past() -> None:
    found = fed(status(10), status(11, busy=50.0), status(12, busy=50.5))
    assert found.receivers() == {"0": {"busy": 0.5, "idle": 0.0}}
    assert found.group("counts")["seconds"] == 2.0
