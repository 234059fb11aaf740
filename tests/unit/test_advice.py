"""The sentences at the end of a run, and the arithmetic of each number in them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock_server.advice import (
    Measured,
    Setup,
    advise,
    produced_share,
    workers_that_fit,
    workers_wanted,
)

# 100 s, of which training waits 12: in 88 s it draws 11,000 times, 125 a second. At 1.25 draws a
# sample it could use 100 new ones a second; 4 workers have produced 70.
STREAM = Measured(
    seconds=100.0,
    waits_s={"solver": 12.0},
    compute_s=80.0,
    draws=11_000,
    admitted=7_000,
    workers_s={"computing": 400.0},
)
ROOMY = Setup(workers=4, cores=64, draws_per_sample=1.25)


def test_the_sentence_of_the_issue() -> None:
    assert produced_share(STREAM, ROOMY) == pytest.approx(0.7)
    assert advise(STREAM, ROOMY) == (
        "Training waited 12 % of the time, because 4 workers produce 70 % of what it can use; "
        "6 would do."
    )


def test_so_many_workers_as_are_wanted_produce_enough_and_one_fewer_does_not() -> None:
    for n in range(1, 9):
        for percent in range(5, 100, 5):
            share = percent / 100
            wanted = workers_wanted(n, share)
            assert wanted > n
            assert wanted * share / n >= 1 - 1e-9
            assert (wanted - 1) * share / n < 1
    assert workers_wanted(1, 0.5) == 2
    assert workers_wanted(3, 0.3) == 10  # 3 / 0.3 is 10.000000000000002


def test_one_worker_is_spoken_of_as_one() -> None:
    one = replace(STREAM, workers_s={"computing": 100.0})
    assert "1 worker produces 70 % of what it can use; 2 would do." in advise(one, ROOMY)


def test_workers_are_counted_as_they_were_and_not_as_they_were_planned() -> None:
    died = replace(STREAM, workers_s={"computing": 290.0})
    assert "3 workers produce 70 % of what it can use; 5 would do." in advise(died, ROOMY)
    untold = replace(STREAM, workers_s={})
    assert "4 workers produce" in advise(untold, ROOMY)


def test_more_workers_are_advised_as_far_as_there_are_cores() -> None:
    used = replace(STREAM, cpu_s={"solvers": 400.0, "all": 500.0})  # 4 cores, and 1 of the others
    assert [workers_that_fit(4, used, replace(ROOMY, cores=c)) for c in (4, 5, 6, 7)] == [
        4,
        4,
        5,
        6,
    ]
    assert advise(used, replace(ROOMY, cores=7)).endswith("6 would do.")
    assert advise(used, replace(ROOMY, cores=6)).endswith(
        "; 6 would do, the 6 cores here have room for 5. Or raise reservoir.draws_per_sample."
    )
    assert advise(used, replace(ROOMY, cores=5)).endswith(
        "; 6 would do, but 5 of the 5 cores here are in use already. "
        "Or raise reservoir.draws_per_sample."
    )


def test_solvers_that_run_elsewhere_are_not_held_against_the_cores_here() -> None:
    elsewhere = replace(STREAM, cpu_s={"solvers": 0.0, "all": 100.0})
    assert workers_that_fit(4, elsewhere, replace(ROOMY, cores=1)) is None
    assert advise(elsewhere, replace(ROOMY, cores=1)).endswith("6 would do.")


def test_without_repeats_each_draw_uses_a_sample() -> None:
    fifo = replace(ROOMY, policy="fifo", draws_per_sample=None, cores=5)
    stream = replace(STREAM, draws=8_800, cpu_s={"solvers": 400.0, "all": 500.0})
    assert produced_share(stream, fifo) == pytest.approx(0.7)
    assert 'With reservoir.policy = "reservoir" samples are drawn again' in advise(stream, fifo)


def test_what_cannot_be_said_is_not_said() -> None:
    unlimited = replace(ROOMY, draws_per_sample=None)
    assert produced_share(STREAM, unlimited) is None
    assert "cannot be said" in advise(STREAM, unlimited)
    nothing = replace(STREAM, admitted=0)
    assert produced_share(nothing, ROOMY) == 0
    assert "cannot be said" in advise(nothing, ROOMY)
    only_waited = replace(STREAM, waits_s={"solver": 100.0}, draws=0)
    assert produced_share(only_waited, ROOMY) is None
    assert "waited 100 % of the time for new samples of 4 workers" in advise(only_waited, ROOMY)


def test_workers_that_produce_enough_on_average_are_not_called_too_few() -> None:
    plenty = replace(STREAM, admitted=10_500)
    text = advise(plenty, ROOMY)
    assert "all that it can use on average: they come unevenly" in text
    assert "would do" not in text


def test_the_largest_cause_is_named_alone() -> None:
    waits = {"solver": 6.0, "reservoir": 20.0, "network": 1.0}
    assert advise(replace(STREAM, waits_s=waits), ROOMY) == (
        "Training waited 20 % of the time while the workers had no room to send: the reservoir is "
        "too small. Raise reservoir.capacity."
    )
    waits = {"solver": 6.0, "network": 30.0}
    text = advise(replace(STREAM, waits_s=waits, receivers_busy=0.97), ROOMY)
    assert text.startswith(
        "Training waited 30 % of the time for samples on their way; the busiest receiver was busy "
        "97 % of the time."
    )
    assert "busiest" not in advise(replace(STREAM, waits_s=waits), ROOMY)


HELD = replace(
    STREAM,
    waits_s={"solver": 1.0},
    workers_s={"computing": 220.0, "room": 100.0, "limiter": 80.0, "idle": 5.0},
)


def test_workers_out_of_credit_are_more_than_training_can_use() -> None:
    assert advise(HELD, ROOMY) == (
        "The 4 workers were out of credit for 45 % of the time, because training, which computed "
        "for 80 % of it, is slower: fewer would do. Another rank, a larger batch or a lower "
        "draws_per_sample would use more of what they send."
    )


def test_how_many_fewer_is_said_only_where_clients_measured_their_waiting() -> None:
    told = replace(HELD, told_s={"seconds": 400.0, "credit": 160.0, "window": 0.0})
    assert "The 4 workers waited for credit for 40 % of the time" in advise(told, ROOMY)
    assert "is slower: 3 would do." in advise(told, ROOMY)
    barely = replace(HELD, told_s={"seconds": 400.0, "credit": 48.0, "window": 0.0})
    assert "would do" not in advise(barely, ROOMY)  # 4 x 0.88 is more than 3
    one = replace(told, workers_s={"computing": 60.0, "room": 40.0})
    assert advise(one, replace(ROOMY, draws_per_sample=None)) == (
        "The worker waited for credit for 40 % of the time, because training, which computed for "
        "80 % of it, is slower. Another rank or a larger batch would use more of what they send."
    )


def test_a_run_that_fits_has_nothing_to_change() -> None:
    never = replace(STREAM, waits_s={})
    assert advise(never, ROOMY) == (
        "Nothing to advise: training waited 0 % of its time, the workers were held for 0 % of "
        "theirs."
    )
    assert advise(replace(never, workers_s={}), ROOMY) == (
        "Nothing to advise: training waited 0 % of its time."
    )


def test_a_short_run_says_that_it_is_too_short() -> None:
    assert advise(Measured(), ROOMY) == (
        "No advice: training and production never ran side by side."
    )
    assert advise(replace(STREAM, seconds=3.14), ROOMY) == (
        "No advice: training and production ran side by side for only 3.14 s; below 10 s that "
        "says little."
    )


@pytest.mark.parametrize("mode", ["offline", "store"])
def test_a_run_without_a_stream_gets_none(mode: str) -> None:
    assert advise(STREAM, replace(ROOMY, mode=mode)) == ""
    assert advise(Measured(), replace(ROOMY, mode=mode)) == ""
