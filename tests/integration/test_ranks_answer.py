"""What the ranks of a program agree on while each goes on with its own work."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
from threaded_comm import ThreadedComm

from penstock import ranks as ranks_module
from penstock.ranks import ASK_S, ASK_STEPS, Ranks


class Clock:
    """Stands where the module looks for `time`."""

    def __init__(self) -> None:
        self.now = 10.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(ranks_module, "time", clock)
    return clock


@pytest.fixture
def ranks(clock: Clock) -> list[Ranks]:
    return [Ranks(comm) for comm in ThreadedComm.ranks(3)]


def ask(ranks: list[Ranks], flags: tuple[bool, bool, bool]) -> list[bool]:
    """One thread asks for all: a rank that waited for the next would do so for ever."""
    return [rank.anywhere(partial(bool, flag)) for rank, flag in zip(ranks, flags)]


def test_nobody_waits_for_ranks_that_are_less_than_a_step_behind(
    ranks: list[Ranks], clock: Clock
) -> None:
    flags = [(False, False, False), (False, True, False), (True, True, True), (False,) * 3]
    answers = []
    for step in flags:
        answers.append(ask(ranks, step))
        clock.now += 2 * ASK_S
    assert answers == [[False] * 3, [False] * 3, [True] * 3, [True] * 3]


@pytest.mark.parametrize("step_s", [0.0, 1e-4, 0.3 * ASK_S, 0.9 * ASK_S])
def test_ranks_with_quick_steps_ask_every_few_and_hear_it_at_the_same_step(
    ranks: list[Ranks], clock: Clock, step_s: float
) -> None:
    heard = []
    for step in range(90):
        answers = ask(ranks, (False, step >= 30, False))
        assert len(set(answers)) == 1
        heard += [step] * answers[0]
        clock.now += step_s
    assert 30 < heard[0] <= 30 + 2 * ASK_STEPS
    every = {late - early for early, late in pairwise(heard)}
    assert every == {min(ASK_STEPS, int(ASK_S / step_s + 1e-6) if step_s else ASK_STEPS)}


def test_of_what_is_over_nothing_is_heard(ranks: list[Ranks]) -> None:
    for _ in range(3):
        ask(ranks, (True, False, False))
    for rank in ranks:
        rank.forget()
    assert ask(ranks, (False,) * 3) == [False] * 3


def test_one_rank_has_its_own_answer_at_once(clock: Clock) -> None:
    alone = Ranks(ThreadedComm.ranks(1)[0])
    assert [alone.anywhere(partial(bool, flag)) for flag in (False, True)] == [False, True]
