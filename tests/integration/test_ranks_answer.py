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


class Program:
    """Three ranks that ask at every step, if there is something to ask.

    One thread asks for all: a rank that waited for the next would do so for ever.
    """

    def __init__(self) -> None:
        self._ranks = [Ranks(comm) for comm in ThreadedComm.ranks(3)]
        self._unasked = [0, 0, 0]

    def ask(self, flags: tuple[bool, bool, bool]) -> list[bool]:
        return [self._ask_one(i, flag) for i, flag in enumerate(flags)]

    def forget(self) -> None:
        """The next simulation."""
        self._unasked = [0, 0, 0]
        for rank in self._ranks:
            rank.forget()

    def _ask_one(self, i: int, flag: bool) -> bool:
        if self._unasked[i]:
            self._unasked[i] -= 1
            return False
        answer, self._unasked[i] = self._ranks[i].anywhere(partial(bool, flag))
        return answer


@pytest.fixture
def program(clock: Clock) -> Program:
    return Program()


def test_nobody_waits_for_ranks_that_are_less_than_a_step_behind(
    program: Program, clock: Clock
) -> None:
    flags = [(False, False, False), (False, True, False), (True, True, True), (False,) * 3]
    answers = []
    for step in flags:
        answers.append(program.ask(step))
        clock.now += 2 * ASK_S
    assert answers == [[False] * 3, [False] * 3, [True] * 3, [True] * 3]


@pytest.mark.parametrize("step_s", [0.0, 1e-4, 0.3 * ASK_S, 0.9 * ASK_S])
def test_ranks_with_quick_steps_ask_every_few_and_hear_it_at_the_same_step(
    program: Program, clock: Clock, step_s: float
) -> None:
    heard = []
    for step in range(90):
        answers = program.ask((False, step >= 30, False))
        assert len(set(answers)) == 1
        heard += [step] * answers[0]
        clock.now += step_s
    assert 30 < heard[0] <= 30 + 2 * ASK_STEPS
    every = {late - early for early, late in pairwise(heard)}
    assert every == {min(ASK_STEPS, int(ASK_S / step_s + 1e-6) if step_s else ASK_STEPS)}


def test_of_what_is_over_nothing_is_heard(program: Program) -> None:
    for _ in range(3):
        program.ask((True, False, False))
    program.forget()
    assert program.ask((False,) * 3) == [False] * 3


def test_one_rank_has_its_own_answer_at_once(clock: Clock) -> None:
    alone = Ranks(ThreadedComm.ranks(1)[0])
    answers = [alone.anywhere(partial(bool, flag)) for flag in (False, True)]
    assert answers == [(False, 0), (True, 0)]
