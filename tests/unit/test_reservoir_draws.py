"""How a reservoir draws: uniformly, unseen first where that is asked for, in order for fifo."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from penstock_server.reservoir import Population, Reservoir


def filled(policy: str, n_slots: int, windows: int = 1, seed: int = 3) -> Reservoir:
    drawn = np.zeros((n_slots, windows), dtype="<u4")
    reservoir = Reservoir(policy, drawn, np.random.default_rng(seed))
    for _ in range(n_slots):
        slot, _ = reservoir.acquire()
        reservoir.put(slot, windows)
    return reservoir


def train(reservoir: Reservoir, batch_size: int, n_batches: int, first: int = 1) -> np.ndarray:
    """Counts of draws by sample."""
    counts = np.zeros(reservoir.n_slots * reservoir.windows, dtype=int)
    for batch in range(first, first + n_batches):
        samples = reservoir.choose(batch_size)
        reservoir.confirm(samples, batch)
        np.add.at(counts, samples, 1)
    return counts


def test_draws_of_what_was_seen_are_uniform() -> None:
    reservoir = filled("reservoir", 60, windows=3)
    train(reservoir, 30, 60)
    assert reservoir.n_undrawn == 0
    counts = train(reservoir, 20, 900, first=61)
    assert chisquare(counts).pvalue > 0.01


def test_draws_of_what_is_unseen_are_uniform() -> None:
    counts = np.zeros(200, dtype=int)
    for seed in range(150):
        reservoir = filled("reservoir", 200, seed=seed)
        np.add.at(counts, reservoir.choose(20), 1)
    assert chisquare(counts).pvalue > 0.01


def test_evictions_are_uniform_over_what_may_go() -> None:
    counts = np.zeros(50, dtype=int)
    for seed in range(400):
        reservoir = filled("reservoir", 50, seed=seed)
        train(reservoir, 50, 1)
        reservoir.snapshot(1)
        for _ in range(5):
            slot, evicted = reservoir.acquire()
            assert evicted
            counts[slot] += 1
    assert chisquare(counts).pvalue > 0.01


def test_while_more_than_half_is_unseen_only_unseen_are_drawn() -> None:
    """Uniform draws with unseen never evicted would stop for ever at one draw a sample."""
    reservoir = filled("reservoir", 100)
    for batch in range(1, 6):
        samples = reservoir.choose(10)
        assert reservoir.confirm(samples, batch) == 10
    assert reservoir.n_undrawn == 50
    drawn = sum(reservoir.confirm(reservoir.choose(10), batch) for batch in range(6, 9))
    assert drawn < 30  # from here on they are mixed


def test_urgent_draws_take_unseen_first_and_anything_when_there_are_none() -> None:
    reservoir = filled("reservoir", 20)
    train(reservoir, 5, 3)
    left = reservoir.n_undrawn
    assert reservoir.confirm(reservoir.choose(left, urgent=True), 4) == left
    assert len(reservoir.choose(5, urgent=True)) == 5


def test_fifo_draws_in_the_order_of_admission_also_after_a_batch_was_taken_back() -> None:
    reservoir = filled("fifo", 12)
    admitted = reservoir.choose(12).tolist()
    reservoir.cancel(np.array(admitted))
    first, second = reservoir.choose(4), reservoir.choose(4)
    assert [*first.tolist(), *second.tolist()] == admitted[:8]
    reservoir.cancel(first)
    reservoir.cancel(second)
    assert reservoir.choose(12).tolist() == admitted


def test_fifo_after_going_back_to_a_snapshot_repeats_the_same_order() -> None:
    reservoir = filled("fifo", 9)
    order = []
    for batch in (1, 2, 3):
        samples = reservoir.choose(3)
        order.append(samples.tolist())
        reservoir.confirm(samples, batch)
    reservoir.snapshot(1)
    reservoir.restore(1)
    assert [reservoir.choose(3).tolist(), reservoir.choose(3).tolist()] == order[1:]


def test_a_keep_all_store_hands_out_nothing() -> None:
    assert len(filled("keep", 8).choose(4)) == 0


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="reservoir, fifo, firo, keep"):
        Reservoir("lifo", np.zeros((1, 1), "<u4"), np.random.default_rng(0))


def test_a_population_chooses_every_subset_of_the_asked_size() -> None:
    population = Population(5)
    for item in (0, 2, 4):
        population.add(item)
        population.add(item)
    rng = np.random.default_rng(0)
    seen = {tuple(sorted(population.choose(2, rng).tolist())) for _ in range(50)}
    assert seen == {(0, 2), (0, 4), (2, 4)}
    population.discard(2)
    population.discard(2)
    assert sorted(population.choose(9, rng).tolist()) == [0, 4]
