"""The keeper: out of real shards into the file, in time for eviction, once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import stored

from penstock_server.data_file import DataFile
from penstock_server.dataset import DataSet
from penstock_server.keeper import Keeper, wanted
from penstock_server.ledger import Ledger
from penstock_server.slab import COMMITTED, Slab, SlabSpec


class Shard:
    """A slab in which a test commits segments by hand, with its ledger."""

    def __init__(self, folder: Path, n_slots: int) -> None:
        spec = SlabSpec(n_slots, 2, 1, 2, {"u": (stored.SHAPE, "float32")}, {}, 1, 64)
        self.slab = Slab.create(folder, spec)
        self.ledger = Ledger(folder / "ledger")
        self.ordinal = 0

    def commit(self, slot: int, simulation: int, segment: int, role: int = 0) -> None:
        slab, row = self.slab, self.slab.descriptor[slot]
        self.ordinal += 1
        row["simulation"], row["segment"], row["role"] = simulation, segment, role
        row["n_steps"], row["ordinal"] = 2, self.ordinal
        for i in range(2):
            slab.fields["u"][slot, i] = stored.value(simulation, 2 * segment + i)
            slab.t[slot, i] = 0.1 * (2 * segment + i + 1)
        slab.parameters[slot] = list(stored.point(simulation).values())
        row["state"] = COMMITTED
        self.ledger.admit(simulation, segment)

    def end(self, simulation: int) -> None:
        self.ledger.end(simulation, 6, 3)


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return Shard(tmp_path / "shard", 4)


def keeper(shard: Shard, path: Path, keep: str | float = "all") -> Keeper:
    file = DataFile(path, stored.layout({"train": 30, "validation": 3}))
    return Keeper([shard.slab], file, keep, seed=1)


def test_a_trickle_gathers_and_a_flood_does_not_wait(tmp_path: Path) -> None:
    large = Shard(tmp_path / "large", 40_000)
    own = keeper(large, tmp_path / "data.h5")
    assert own.pause_s(0) == own.pause_s(10) == pytest.approx(0.08)
    assert own.pause_s(2500) == 0.0
    small = keeper(Shard(tmp_path / "small", 4), tmp_path / "other.h5")
    assert small.pause_s(0) == pytest.approx(0.02)
    assert small.pause_s(1) == 0.0


def test_segments_are_stored_before_their_slots_may_be_used_again(
    shard: Shard, tmp_path: Path
) -> None:
    own = keeper(shard, tmp_path / "data.h5")
    shard.commit(0, 9, 0)
    shard.commit(1, 9, 1)
    assert int(shard.slab.kept[0]) == 0
    assert own.turn() == 2
    assert int(shard.slab.kept[0]) == 2
    shard.commit(0, 9, 2)  # the slot of the first segment
    shard.end(9)
    assert own.turn() == 1
    own.note_endings()
    (read,) = DataSet(tmp_path / "data.h5").trajectories("train")
    for step in range(6):
        assert np.array_equal(read.fields["u"][step], stored.value(9, step))


def test_nothing_new_is_no_work(shard: Shard, tmp_path: Path) -> None:
    own = keeper(shard, tmp_path / "data.h5")
    shard.commit(0, 1, 0)
    assert [own.turn(), own.turn()] == [1, 0]


def test_a_restarted_keeper_goes_on_behind_the_last_one(shard: Shard, tmp_path: Path) -> None:
    shard.commit(0, 1, 0)
    keeper(shard, tmp_path / "data.h5").turn()
    shard.commit(1, 1, 1)
    shard.commit(2, 1, 2)
    shard.end(1)
    again = keeper(shard, tmp_path / "data.h5")
    assert again.turn() == 2
    again.note_endings()
    assert len(DataSet(tmp_path / "data.h5").trajectories("train")) == 1


def test_an_end_that_is_known_before_the_first_step_is_stored_counts(
    shard: Shard, tmp_path: Path
) -> None:
    own = keeper(shard, tmp_path / "data.h5")
    for segment in range(3):
        shard.commit(segment, 4, segment)
    shard.end(4)
    own.note_endings()  # the file has no row for it yet
    own.turn()
    own.note_endings()
    assert [t.simulation for t in DataSet(tmp_path / "data.h5").trajectories("train")] == [4]


def test_held_out_alone_leaves_training_simulations_out(shard: Shard, tmp_path: Path) -> None:
    own = keeper(shard, tmp_path / "data.h5", "held-out")
    for segment in range(3):
        shard.commit(segment, 2, segment, role=1)
    shard.commit(3, 5, 0)
    for simulation in (2, 5):
        shard.end(simulation)
    assert own.turn() == 4
    own.note_endings()
    data = DataSet(tmp_path / "data.h5")
    assert [t.simulation for t in data.trajectories("validation")] == [2]
    assert data.roles["train"].simulation.max() == -1
    assert int(shard.slab.kept[0]) == 4


def test_a_fraction_keeps_the_same_simulations_in_every_run() -> None:
    kept = [s for s in range(2000) if wanted(s, 0.1, seed=4)]
    assert kept == [s for s in range(2000) if wanted(s, 0.1, seed=4)]
    assert 150 < len(kept) < 250
    assert kept != [s for s in range(2000) if wanted(s, 0.1, seed=5)]
