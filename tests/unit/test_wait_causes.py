"""What a wait is due to, by the counts that decided it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock_server.rounds import Limits, State, Tally, decide
from penstock_server.wait_causes import CAUSES, cause_of

LIMITS = Limits(ranks=2, batch_size=4, threshold=10, band=16, draws_per_sample=2.0)
EMPTY = Tally(ranks=2, admitted=100, stored=90, drawn=150, seconds=10.0)


def cause(tally: Tally, why: str = "empty", started: bool = True, rounds: int = 3) -> str:
    found = cause_of(why, tally, LIMITS, started=started, rounds=rounds)
    assert found in CAUSES
    return found


@pytest.mark.parametrize("why", ["threshold", "normalisation"])
def test_before_the_first_batch_it_is_the_start(why: str) -> None:
    assert cause(EMPTY, why, started=False) == "start"
    assert cause(replace(EMPTY, blocked=1), why, started=False) == "start"


def test_producers_that_may_send_are_too_slow() -> None:
    for why in ("empty", "limiter", "starved rank", "threshold"):
        assert cause(EMPTY, why) == "solver"


def test_producers_without_room_are_not_to_blame() -> None:
    assert cause(replace(EMPTY, blocked=1)) == "reservoir"
    assert cause(replace(EMPTY, pressure=1), "limiter") == "reservoir"


def test_samples_that_are_there_and_not_handed_out_are_on_their_way() -> None:
    assert cause(replace(EMPTY, unseen=16)) == "network"
    assert cause(replace(EMPTY, unseen=15)) == "solver"  # one batch may be drawn already
    assert cause(replace(EMPTY, unseen=16), rounds=0) == "solver"  # the counts may be older
    assert cause(replace(EMPTY, unseen=16), "limiter") == "solver"


def test_what_is_left_when_production_is_over_is_on_its_way() -> None:
    left = replace(EMPTY, over=2, unseen=1)
    assert decide(State(started=True, draining=True), left, LIMITS)[1].why == "empty"
    assert cause(left) == "network"
    assert cause(replace(left, over=1)) == "solver"
