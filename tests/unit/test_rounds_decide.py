"""The decision of a round, case by case, and in a model of a whole campaign."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds_model import Shard, World

from penstock_server.rounds import Limits, Round, State, Tally, decide

LIMITS = Limits(ranks=2, batch_size=10, threshold=100, band=40, draws_per_sample=1.25)
STARTED = State(started=True, snapshot_at=0, batches=5)
# Two ranks with a full batch each, nothing out of the ordinary.
USUAL = Tally(
    ranks=2, ready=20, full=2, repeats=10, stored=400, unseen=150, admitted=400, drawn=300
)


def test_training_waits_for_the_threshold_and_then_for_complete_simulations() -> None:
    limits = replace(LIMITS, normalisation_simulations=3)
    few = Tally(ranks=2, stored=99, complete=9)
    assert decide(State(), few, limits)[1] == Round("wait", 0, "threshold")
    enough = replace(few, stored=100, complete=2)
    assert decide(State(), enough, limits)[1] == Round("wait", 0, "normalisation")
    state, chosen = decide(State(), replace(enough, complete=3), limits)
    assert chosen.action == "start"
    assert state.started


def test_training_starts_below_the_threshold_when_every_producer_is_blocked() -> None:
    one = Tally(ranks=2, stored=50, blocked=1)
    assert decide(State(), one, LIMITS)[1].action == "wait"
    assert decide(State(), replace(one, blocked=2), LIMITS)[1].action == "start"


def test_training_starts_when_one_shard_is_blocked_and_nothing_has_come_for_a_while() -> None:
    one = Tally(ranks=2, stored=50, admitted=50, blocked=1)
    state, chosen = decide(State(), one, LIMITS)
    assert chosen.action == "wait"
    state, chosen = decide(state, replace(one, seconds=0.6), LIMITS)
    assert chosen.action == "start"


def test_production_that_ends_below_the_threshold_starts_training() -> None:
    assert decide(State(), Tally(ranks=2, stored=5, over=2), LIMITS)[1].action == "start"


def test_production_that_ends_with_nothing_finishes() -> None:
    chosen = decide(State(), Tally(ranks=2, over=2), LIMITS)[1]
    assert chosen == Round("finish", 0, "nothing was admitted")


def test_the_first_round_after_the_start_takes_a_snapshot() -> None:
    chosen = decide(State(started=True), USUAL, LIMITS)[1]
    assert chosen.action == "train"
    assert chosen.snapshot


def test_a_usual_round_trains_with_what_all_ranks_have() -> None:
    state, chosen = decide(STARTED, USUAL, LIMITS)
    assert chosen == Round("train", 5, total=20)
    assert chosen.count(Tally(ready=7)) == 7
    assert state.batches == 6


def test_the_limiter_counts_repeats_against_admissions() -> None:
    # 1.25 x 400 + 40 - 150 unseen leave room for 390 draws.
    assert decide(STARTED, replace(USUAL, drawn=380), LIMITS)[1].action == "train"
    assert decide(STARTED, replace(USUAL, drawn=381), LIMITS)[1] == Round("wait", 5, "limiter")


def test_the_limiter_lets_a_rank_through_whose_batch_is_unseen() -> None:
    tight = replace(USUAL, drawn=500, fresh=10)
    chosen = decide(STARTED, tight, LIMITS)[1]
    assert chosen == Round("train", 5, total=10, fresh=True)
    assert chosen.count(Tally(ready=10, repeats=0, fresh=10)) == 10
    assert chosen.count(Tally(ready=10, repeats=10, fresh=0)) == 0


def test_the_limiter_gives_way_when_producers_are_blocked_and_nothing_comes() -> None:
    tight = replace(USUAL, drawn=500, blocked=1)
    state, chosen = decide(STARTED, tight, LIMITS)
    assert (chosen.action, chosen.why) == ("wait", "limiter")
    assert decide(state, replace(tight, seconds=0.6), LIMITS)[1].action == "train"


def test_producers_are_held_when_the_trainer_is_behind() -> None:
    # 250 samples were drawn at least once and are owed 312.5 draws.
    assert not decide(STARTED, replace(USUAL, drawn=273), LIMITS)[1].hold
    assert decide(STARTED, replace(USUAL, drawn=272), LIMITS)[1].hold
    assert not decide(STARTED, replace(USUAL, drawn=272), replace(LIMITS, policy="fifo"))[1].hold


def test_a_starved_rank_is_waited_for_once_and_then_left_out() -> None:
    starved = replace(USUAL, ready=10, full=1)
    state, chosen = decide(STARTED, replace(USUAL, seconds=3.0), LIMITS)
    state, chosen = decide(state, replace(starved, seconds=3.4), LIMITS)
    assert chosen == Round("wait", 6, "starved rank")
    for seconds in (3.5, 3.51, 3.52):
        state, chosen = decide(state, replace(starved, seconds=seconds), LIMITS)
        assert chosen.action == "train"
        assert chosen.total == 10


def test_a_batch_that_is_not_full_anywhere_is_waited_for_unless_producers_are_blocked() -> None:
    partial = replace(USUAL, ready=12, full=0)
    assert decide(STARTED, partial, LIMITS)[1] == Round("wait", 5, "empty")
    assert decide(STARTED, replace(partial, blocked=1), LIMITS)[1].total == 12


def test_firo_keeps_its_threshold_after_the_start() -> None:
    firo = replace(LIMITS, policy="firo", draws_per_sample=None)
    low = replace(USUAL, stored=99, unseen=99)
    assert decide(STARTED, low, firo)[1] == Round("wait", 5, "threshold")
    assert decide(STARTED, replace(low, over=2), firo)[1].action == "drain"


def test_after_production_the_ratio_is_reached_before_the_drain() -> None:
    over = replace(USUAL, over=2, drawn=340, unseen=150)
    assert decide(STARTED, over, LIMITS)[1].action == "train"  # 490 of 500
    state, chosen = decide(STARTED, replace(over, drawn=350), LIMITS)
    assert chosen.action == "drain"
    assert decide(state, replace(over, ready=20), LIMITS)[1].action == "train"
    assert decide(state, replace(over, ready=0, unseen=1), LIMITS)[1] == Round("wait", 5, "empty")
    done = decide(state, replace(over, ready=0, unseen=0), LIMITS)[1]
    assert (done.action, done.why, done.snapshot) == ("finish", "drained", True)


@pytest.mark.parametrize(
    ("limits", "tally", "why"),
    [
        (replace(LIMITS, stop_batches=5), USUAL, "batches"),
        (LIMITS, replace(USUAL, stop=1), "stopped"),
    ],
)
def test_every_stop_rule_finishes_without_a_drain(limits: Limits, tally: Tally, why: str) -> None:
    chosen = decide(STARTED, tally, limits)[1]
    assert (chosen.action, chosen.why, chosen.snapshot) == ("finish", why, True)


def test_a_number_of_batches_goes_on_after_production_without_a_limiter() -> None:
    limits = replace(LIMITS, draws_per_sample=None, stop_batches=1000)
    assert decide(STARTED, replace(USUAL, over=2), limits)[1].action == "train"
    assert decide(STARTED, replace(USUAL, over=2, ready=0, stored=0), limits)[1].action == "drain"


def test_snapshots_come_regularly_and_sooner_under_pressure() -> None:
    state = replace(STARTED, batches=19, snapshot_at=0)
    assert not decide(state, replace(USUAL, pressure=1), LIMITS)[1].snapshot
    state = replace(state, batches=20)
    assert not decide(state, USUAL, LIMITS)[1].snapshot
    assert decide(state, replace(USUAL, pressure=1), LIMITS)[1].snapshot
    assert not decide(state, replace(USUAL, pressure=1, resting=1), LIMITS)[1].snapshot
    assert decide(replace(state, batches=200), USUAL, LIMITS)[1].snapshot
    validating = replace(LIMITS, validation_batches=7)
    assert decide(replace(state, batches=14), USUAL, validating)[1].snapshot


def test_a_waiting_round_with_blocked_producers_takes_a_snapshot_at_once() -> None:
    chosen = decide(STARTED, replace(USUAL, drawn=500, blocked=1), LIMITS)[1]
    assert (chosen.action, chosen.snapshot) == ("wait", True)
    just = replace(STARTED, snapshot_at=5)
    assert not decide(just, replace(USUAL, drawn=500, blocked=1), LIMITS)[1].snapshot


def test_checkpoints_come_by_the_clock_one_at_a_time_and_with_a_snapshot() -> None:
    limits = replace(LIMITS, checkpoint_s=60.0)
    due = replace(USUAL, seconds=60.0)
    assert not decide(STARTED, replace(due, seconds=59.0), limits)[1].checkpoint
    assert not decide(STARTED, replace(due, writing=1), limits)[1].checkpoint
    state, chosen = decide(STARTED, due, limits)
    assert chosen.checkpoint
    assert chosen.snapshot
    assert not decide(state, replace(due, seconds=119.0), limits)[1].checkpoint
    assert decide(state, replace(due, seconds=120.0), limits)[1].checkpoint


def test_a_checkpoint_goes_with_a_snapshot_that_is_taken_shortly_before_it_is_due() -> None:
    limits = replace(LIMITS, checkpoint_s=60.0)
    at = limits.snapshot_batches
    regular = replace(STARTED, batches=at, snapshot_at=0)
    early = replace(USUAL, seconds=54.0)
    assert decide(regular, early, limits)[1].checkpoint
    assert not decide(regular, replace(early, seconds=53.0), limits)[1].checkpoint
    assert not decide(replace(regular, snapshot_at=at - 1), early, limits)[1].checkpoint


def test_draws_below_one_per_sample_are_refused() -> None:
    with pytest.raises(ValueError, match="draws_per_sample must be at least 1"):
        replace(LIMITS, draws_per_sample=0.5)


def test_a_band_below_one_batch_of_all_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="band must be at least ranks x batch_size = 20, got 19"):
        replace(LIMITS, band=19)


def test_a_tally_survives_the_way_through_an_all_reduce() -> None:
    assert Tally.from_vector(USUAL.vector()) == USUAL
    assert (USUAL + USUAL).ready == 40


@st.composite
def worlds(draw: st.DrawFn) -> World:
    ranks = draw(st.integers(1, 3))
    batch = draw(st.integers(1, 5))
    windows = draw(st.integers(1, 3))
    slots = draw(st.integers(-(-2 * batch // windows) + 2, 20))
    ratio = draw(st.sampled_from([None, 1.0, 1.01, 1.25, 2.0, 5.0]))
    seed = draw(st.integers(0, 2**31))
    limits = Limits(
        ranks=ranks,
        batch_size=batch,
        threshold=draw(st.integers(0, ranks * slots * windows)),
        band=ranks * batch * draw(st.integers(1, 3)),
        draws_per_sample=ratio,
        snapshot_batches=draw(st.integers(1, 30)),
        pressure_batches=draw(st.integers(1, 10)),
    )
    shards = [Shard(slots, windows, batch, random.Random(seed + r)) for r in range(ranks)]
    return World(
        limits=limits,
        shards=shards,
        simulations=draw(st.integers(1, 6)),
        segments=draw(st.integers(1, 25)),
        workers=draw(st.integers(1, 3)),
        speed=draw(st.integers(1, 12)),
    )


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_every_campaign_ends_inside_the_band_with_everything_drawn(world: World) -> None:
    limits, total = world.limits, world.simulations * world.segments * world.shards[0].windows
    ratio = limits.draws_per_sample or 1.0
    last = world.run(most_rounds=int(400 + 60 * ratio * total))
    assert last.why == "drained"
    assert sum(s.admitted for s in world.shards) == total
    assert all(b for s in world.shards for slot in s.held for b in slot)
    assert world.highest <= limits.band
    if limits.draws_per_sample is not None:
        assert sum(s.drawn for s in world.shards) >= ratio * total


@settings(max_examples=50, deadline=None)
@given(worlds(), st.integers(0, 20))
def test_a_number_of_batches_is_never_exceeded(world: World, batches: int) -> None:
    world.limits = replace(world.limits, stop_batches=batches)
    world.run(most_rounds=20_000)
    assert world.state.batches <= batches


def test_a_slow_trainer_holds_fast_producers_so_that_the_ratio_is_kept_throughout() -> None:
    limits = Limits(ranks=1, batch_size=10, threshold=100, band=20, draws_per_sample=1.25)
    world = World(limits, [Shard(400, 1, 10, random.Random(1))], 50, 100, 4, speed=1000)
    world.run(most_rounds=5000)
    assert world.shards[0].admitted == 5000
    # Behind by what is unseen (at most the capacity, owed 1.25 each), the band, and two rounds.
    assert world.lowest >= -(1.25 * 400 + 20 + 40)


def test_a_shard_without_producers_does_not_stop_the_one_that_is_full() -> None:
    limits = Limits(ranks=2, batch_size=5, threshold=20, band=20, draws_per_sample=1.0)
    shards = [Shard(30, 1, 5, random.Random(r)) for r in range(2)]
    world = World(limits, shards, simulations=1, segments=400, workers=1, speed=20)
    world._shard = lambda running: shards[running[1] > 20]  # type: ignore[method-assign]
    assert world.run(most_rounds=5000).why == "drained"
    assert world.highest <= 20


def test_producers_are_never_held_while_the_trainer_waits() -> None:
    behind = replace(USUAL, drawn=200)
    assert decide(STARTED, behind, LIMITS)[1].hold
    waiting = decide(STARTED, replace(behind, ready=4, full=0, repeats=0), LIMITS)[1]
    assert (waiting.action, waiting.hold) == ("wait", False)
