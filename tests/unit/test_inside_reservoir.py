"""Mean and spread of what a slab holds: by steps, of committed slots alone, cheap."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from penstock_server.inside import EVERY_S, MOST_VALUES, Inside, contents
from penstock_server.slab import COMMITTED, OPEN, Slab, SlabSpec

NAMES = ["a", "b"]


def slab(folder: Path, n_slots: int = 6, segment_steps: int = 2, k: int = 0) -> Slab:
    """k: values of an input field of this name; 0: there is none."""
    spec = SlabSpec(
        n_slots=n_slots, segment_steps=segment_steps, window=1, n_parameters=2,
        fields={"u": ((2,), "float32")}, inputs={"k": ((k,), "float32")} if k else {},
        n_rows=n_slots if k else 0, max_parts=1,
    )  # fmt: skip
    made = Slab.create(folder / "shm", spec)
    made.t[:] = np.nan
    return made


def fill(made: Slab, slot: int, parameters: list[float], t: list[float]) -> None:
    made.parameters[slot] = parameters
    made.t[slot, : len(t)] = t
    made.descriptor["n_steps"][slot] = len(t)
    made.descriptor["state"][slot] = COMMITTED


def test_every_step_in_store_counts_once(tmp_path: Path) -> None:
    made = slab(tmp_path)
    fill(made, 1, [1.0, 10.0], [0.1, 0.2])
    fill(made, 4, [4.0, 10.0], [0.6])  # the end of a simulation, one step short
    fill(made, 5, [100.0, 0.0], [0.9, 1.0])
    made.descriptor["state"][5] = OPEN
    found = contents(made, NAMES)
    steps = np.array([1.0, 1.0, 4.0])
    assert found["inside_mean_a"] == pytest.approx(steps.mean())
    assert found["inside_std_a"] == pytest.approx(steps.std())
    assert (found["inside_mean_b"], found["inside_std_b"]) == (10.0, 0.0)
    assert found["inside_mean_t"] == pytest.approx(0.3)
    assert found["inside_std_t"] == pytest.approx(np.std([0.1, 0.2, 0.6]))


def test_of_an_empty_slab_nothing_is_said(tmp_path: Path) -> None:
    assert contents(slab(tmp_path), NAMES) == {}


def test_an_input_field_counts_once_a_simulation(tmp_path: Path) -> None:
    made = slab(tmp_path, k=3)
    for slot, row in ((0, 4), (1, 4), (3, 2)):
        fill(made, slot, [1.0, 2.0], [0.5, 0.6])
        made.descriptor["row"][slot] = row
    made.inputs["k"][:] = np.nan  # of rows that nothing in store has
    made.inputs["k"][4], made.inputs["k"][2] = [1.0, 2.0, 3.0], [5.0, 5.0, 8.0]
    found = contents(made, NAMES)
    values = np.array([1.0, 2.0, 3.0, 5.0, 5.0, 8.0])
    assert found["inside_mean_k"] == pytest.approx(values.mean())
    assert found["inside_std_k"] == pytest.approx(values.std())


def test_of_large_input_fields_a_part_of_the_simulations_is_looked_at(tmp_path: Path) -> None:
    made = slab(tmp_path, n_slots=40, k=MOST_VALUES // 4)
    for slot in range(40):
        fill(made, slot, [1.0, 2.0], [0.5, 0.6])
        made.descriptor["row"][slot] = slot
        made.inputs["k"][slot, 0] = made.inputs["k"].shape[1] * slot
    found = contents(made, NAMES)
    assert found["inside_mean_k"] == pytest.approx(np.mean([0, 10, 20, 30]))


def test_steady_problems_have_no_t(tmp_path: Path) -> None:
    made = slab(tmp_path, segment_steps=1)
    fill(made, 0, [1.0, 2.0], [np.nan])
    assert sorted(contents(made, NAMES)) == [
        f"inside_{what}_{name}" for what in ("mean", "std") for name in NAMES
    ]


def test_looks_are_seconds_apart(tmp_path: Path) -> None:
    made = slab(tmp_path)
    fill(made, 0, [1.0, 2.0], [0.5])
    inside = Inside(made, NAMES)
    inside.look(100.0)
    fill(made, 0, [7.0, 2.0], [0.5])
    inside.look(100.0 + EVERY_S / 2)
    assert inside.counts["inside_mean_a"] == 1.0
    inside.look(100.0 + EVERY_S)
    assert inside.counts["inside_mean_a"] == 7.0


def test_large_slabs_are_looked_at_in_part(tmp_path: Path) -> None:
    made = slab(tmp_path, n_slots=6000, segment_steps=20)
    made.parameters[:] = np.random.default_rng(0).normal([5, -2], [1, 3], (6000, 2))
    made.t[:] = np.linspace(0, 1, 20)
    made.descriptor["n_steps"], made.descriptor["state"] = 20, COMMITTED
    began_s = time.process_time()
    for _ in range(10):
        found = contents(made, NAMES)
    assert (time.process_time() - began_s) / 10 < 0.02  # 0.4 ms alone
    assert found["inside_mean_a"] == pytest.approx(5, abs=0.15)
    assert found["inside_std_b"] == pytest.approx(3, abs=0.3)
    assert found["inside_mean_t"] == pytest.approx(0.5)
