"""What the ranks of a program agree on while each goes on with its own work."""

from __future__ import annotations

import pytest
from threaded_comm import ThreadedComm

from penstock.ranks import Ranks


@pytest.fixture
def ranks() -> list[Ranks]:
    return [Ranks(comm) for comm in ThreadedComm.ranks(3)]


def test_nobody_waits_for_ranks_that_are_less_than_a_step_behind(ranks: list[Ranks]) -> None:
    """One thread asks for all: a rank that waited for the next would do so for ever."""
    flags = [(False, False, False), (False, True, False), (True, True, True), (False,) * 3]
    answers = [[rank.anywhere(flag) for rank, flag in zip(ranks, step)] for step in flags]
    assert answers == [[False] * 3, [False] * 3, [True] * 3, [True] * 3]


def test_of_what_is_over_nothing_is_heard(ranks: list[Ranks]) -> None:
    for rank in ranks:
        rank.anywhere(True)
    assert [rank.forget() for rank in ranks] == [True] * 3
    assert [rank.forget() for rank in ranks] == [False] * 3
    assert [rank.anywhere(False) for rank in ranks] == [False] * 3


def test_one_rank_has_its_own_answer_at_once() -> None:
    alone = Ranks(ThreadedComm.ranks(1)[0])
    assert [alone.anywhere(flag) for flag in (False, True, False)] == [False, True, False]
