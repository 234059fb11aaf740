"""Credit, blocking and roles of a shard, one rule at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.wire import STEP, FieldEntry, Header, Kind
from penstock_server import bunches
from penstock_server.door import Refusal
from penstock_server.ledger import Ledger
from penstock_server.plans import Plan, read_target
from penstock_server.reservoir import Reservoir
from penstock_server.shard import Shard
from penstock_server.slab import Slab, SlabSpec

WHOLE = Plan(
    {0: read_target("u", (3,), np.array([0, 1, 3, 0, 3], dtype="<i8").tobytes())}, b"whole"
)


TABLE = (FieldEntry(0, 1, 12),)


class Stand:
    """A shard and the trainer beside it; every simulation comes in one part."""

    def __init__(self, folder: Path, policy: str = "reservoir", **more: Any) -> None:
        self.folder, self.policy = folder, policy
        values: dict[str, Any] = {"n_slots": 8, "segment_steps": 1, "window": 1, **more}
        spec = SlabSpec(
            **values,
            n_parameters=0,
            fields={"u": ((3,), "float32")},
            inputs={},
            n_rows=0,
            max_parts=4,
        )
        Slab.create(folder, spec)
        self.batch = 0
        self.build()

    def build(self, **rules: Any) -> Shard:
        slab = Slab.attach(self.folder, writable=True)
        reservoir = Reservoir(self.policy, slab.drawn, np.random.default_rng(0))
        ledger = Ledger(self.folder / "ledger")
        self.shard = Shard(slab, ledger, reservoir, ["u"], max_steps=100, **rules)
        return self.shard

    def open(self, simulation: int, lease: int = 1, role: int = 0) -> None:
        header = Header(Kind.OPEN, 0, simulation, lease, geometry=1, flags=role)
        self.shard.open(header, b"", b"peer", WHOLE)

    def send(self, simulation: int, step: int, lease: int = 1) -> None:
        values = np.full(3, 100 * simulation + step, dtype="f4")
        header = Header(Kind.PART, 0, simulation, lease, step, fields=TABLE)
        reception = self.shard.receive(header)
        reception.arrays[0][:] = values
        self.shard.receive_done(reception)

    def send_bunch(
        self,
        simulation: int,
        steps: list[int],
        bad: int | None = None,
        at_once: bool = True,
    ) -> bool:
        """Steps in one message, or one by one; the values of step `bad` are not finite."""
        if not at_once:
            for step in steps:
                self.send(simulation, step)
            return True
        numbers = np.zeros(len(steps), STEP)
        numbers["step"], numbers["t"] = steps, np.nan
        values = np.repeat(np.array(steps, "f4") + 100 * simulation, 3)
        if bad is not None:
            values[3 * steps.index(bad)] = np.inf
        header = Header(Kind.BUNCH, 0, simulation, 1, len(steps), fields=TABLE)
        return self.shard.receive_bunch(header, numbers, [values.tobytes()])

    def end(self, simulation: int, n_steps: int, lease: int = 1) -> None:
        stream = self.shard.find(Header(Kind.END, 0, simulation, lease))
        self.shard.end(stream, 0, n_steps)

    def granted(self, simulation: int) -> int:
        return self.shard.streams[simulation].granted

    def train(self, k: int = 100) -> int:
        samples = self.shard.choose(k, unseen_only=True)
        self.batch += 1
        return self.shard.reservoir.confirm(samples, self.batch)


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path / "shm")


def fill(stand: Stand, simulation: int = 0) -> None:
    """Sends until there is no more credit; all slots are taken."""
    step = 0
    while True:
        stand.shard.credit.grant()
        if stand.granted(simulation) <= step:
            return
        stand.send(simulation, step)
        step += 1


def test_credit_is_shared_between_those_who_want_it(stand: Stand) -> None:
    for simulation in range(4):
        stand.open(simulation)
    stand.shard.credit.grant()
    given = [stand.granted(simulation) for simulation in range(4)]
    assert given == [1, 1, 1, 1]  # half of the slots; the rest is for who asks next
    stand.open(4)
    stand.shard.credit.grant()
    assert stand.granted(4) == 1


def test_credit_never_exceeds_the_slots(stand: Stand) -> None:
    for simulation in range(20):
        stand.open(simulation)
    for _ in range(5):
        stand.shard.credit.grant()
    assert sum(stand.granted(simulation) for simulation in range(20)) == 8


@pytest.mark.parametrize("sent", [[0, 1, 2], [2], []])
def test_credit_is_granted_at_once_as_it_is_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: list[int]
) -> None:
    """Also to a second attempt, some of whose segments are here already."""
    stands = [Stand(tmp_path / name) for name in ("at-once", "one-by-one")]
    monkeypatch.setattr(stands[1].shard.credit, "_grant_many", lambda *_: False)
    for stand in stands:
        stand.open(0)
        stand.shard.credit.grant()
        for step in sent:
            stand.send(0, step)
        stand.open(0, lease=2)
        stand.open(1)
        for _ in range(3):
            stand.shard.credit.grant()
    one, other = (stand.shard for stand in stands)
    for simulation in (0, 1):
        mine, theirs = one.streams[simulation], other.streams[simulation]
        assert mine.granted == theirs.granted > 0
        assert mine.reserved_ordinals == theirs.reserved_ordinals
        assert mine.reserved == theirs.reserved == len(mine.reserved_ordinals)
    assert one.credit.reserved == other.credit.reserved


def books(shard: Shard) -> tuple[object, ...]:
    stream = shard.streams[0]
    kept = sorted(stream.reserved_ordinals), stream.reserved, shard.credit.reserved
    available = shard.reservoir.n_available, len(shard.reservoir.unseen)
    return kept, available, shard.ledger.segments(0), shard.counters["admitted"]


OUT_OF_THE_ORDINARY = (
    ([1, 2, 3], 2), ([0, 1], None), ([2, 1], None), ([1, 1], None), ([2, 3, 4], None),
    ([1, 200], None), ([2**32 - 1], None),
)  # fmt: skip


@pytest.mark.parametrize(("large_bytes", "piece_bytes"), [(0, 1000), (1000, 1000), (0, 4)])
@pytest.mark.parametrize(("steps", "bad"), OUT_OF_THE_ORDINARY)
def test_nothing_is_admitted_of_a_bunch_that_is_out_of_the_ordinary(
    stand: Stand,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[int],
    bad: int | None,
    large_bytes: int,
    piece_bytes: int,
) -> None:
    monkeypatch.setattr(bunches, "LARGE_BYTES", large_bytes)
    monkeypatch.setattr(bunches, "PIECE_BYTES", piece_bytes)
    stand.open(0)
    stand.shard.credit.grant()
    assert stand.granted(0) == 4
    stand.send(0, 0)
    before = books(stand.shard)
    assert not stand.send_bunch(0, steps, bad)
    assert books(stand.shard) == before
    assert stand.send_bunch(0, [1, 3])
    assert stand.send_bunch(0, [2])
    stand.end(0, 4)
    assert 0 in stand.shard.delivered
    assert stand.train() == 4


@pytest.mark.parametrize("piece_bytes", [4, 1000])
def test_a_bunch_of_values_that_are_not_finite_costs_no_more_than_its_slots(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr(bunches, "PIECE_BYTES", piece_bytes)
    stand.open(0)
    fill(stand)
    stand.train()
    stand.shard.snapshot(stand.batch)
    stand.open(1)
    stand.shard.credit.grant()
    kept = sorted(stand.shard.streams[1].reserved_ordinals)
    assert len(kept) > 1
    assert not stand.send_bunch(1, kept, bad=kept[1])
    assert stand.shard.ledger.segments(1) == []
    assert sorted(stand.shard.streams[1].reserved_ordinals) == kept
    assert stand.send_bunch(1, kept)
    assert stand.shard.ledger.segments(1) == kept


@pytest.mark.parametrize("policy", ["reservoir", "fifo", "firo", "keep", "store"])
def test_a_bunch_leaves_what_its_steps_would_have_left_one_by_one(
    tmp_path: Path, policy: str
) -> None:
    stands = [Stand(tmp_path / name, policy=policy) for name in ("at-once", "one-by-one")]
    for stand, at_once in zip(stands, (True, False)):
        stand.open(0, role=int(policy == "keep"))
        for _ in range(2):  # all slots, and none is given up
            stand.shard.credit.grant()
            steps = sorted(stand.shard.streams[0].reserved_ordinals)
            assert stand.send_bunch(0, steps, at_once=at_once)
            stand.train(3)
    one, other = (stand.shard for stand in stands)
    for name in ("descriptor", "parts", "drawn", "t", "parameters"):
        np.testing.assert_array_equal(getattr(one.slab, name), getattr(other.slab, name))
    np.testing.assert_array_equal(one.slab.fields["u"], other.slab.fields["u"])
    assert one.counters == other.counters
    assert one.admitted_samples == other.admitted_samples == 8
    assert one.ledger.segments(0) == other.ledger.segments(0)
    assert books(one) == books(other)
    mine, theirs = one.reservoir, other.reservoir
    for name in ("stored", "unseen", "evictable"):
        assert getattr(mine, name).all().tolist() == getattr(theirs, name).all().tolist()
    for name in ("free", "n_undrawn", "n_fresh", "n_unkept", "_queue", "_order", "_arrived"):
        assert getattr(mine, name) == getattr(theirs, name)


def test_numbers_that_nobody_planned_take_no_memory(stand: Stand) -> None:
    stand.build(most_simulations=30)
    stand.open(29)
    for number in (30, 1 << 60):
        with pytest.raises(Refusal, match="there can be 30 of them") as refused:
            stand.open(number)
        assert refused.value.kind == "unplanned"
    assert list(stand.shard.ledger.simulations()) == [29]


def test_a_lone_stream_gets_half_of_the_slots_ahead(stand: Stand) -> None:
    stand.open(0)
    stand.shard.credit.grant()
    assert stand.granted(0) == 4


def test_no_credit_goes_beyond_the_longest_simulation(tmp_path: Path) -> None:
    stand = Stand(tmp_path / "shm", n_slots=400, segment_steps=7)
    stand.open(0)
    stand.shard.credit.grant()
    assert stand.granted(0) == 15  # 100 steps are 14 segments of 7 and a short one


def test_no_credit_is_given_while_the_trainer_holds_the_producers(stand: Stand) -> None:
    stand.open(0)
    stand.shard.credit.held = True
    assert stand.shard.credit.grant() == []
    stand.shard.credit.held = False
    assert [s.simulation for s in stand.shard.credit.grant()] == [0]


def test_a_full_shard_is_blocked_until_a_snapshot_covers_the_draws(stand: Stand) -> None:
    stand.open(0)
    fill(stand)
    shard = stand.shard
    assert (shard.credit.blocked, shard.credit.pressure) == (True, False)
    stand.train(3)
    assert (shard.credit.blocked, shard.credit.pressure) == (True, True)
    assert shard.credit.grant() == []
    shard.snapshot(stand.batch)
    assert not shard.credit.blocked
    assert [s.granted for s in shard.credit.grant()] == [11]
    assert shard.ledger.totals()["drawn"] == 3


def test_a_stream_in_the_middle_of_a_segment_waits_for_nobody(tmp_path: Path) -> None:
    stand = Stand(tmp_path / "shm", n_slots=1, segment_steps=4)
    stand.open(0)
    stand.shard.credit.grant()
    stand.send(0, 0)
    assert stand.granted(0) == 1
    assert not stand.shard.credit.waits(stand.shard.streams[0])
    assert not stand.shard.credit.blocked
    for step in (1, 2, 3):
        stand.send(0, step)
    assert stand.shard.credit.waits(stand.shard.streams[0])
    assert stand.shard.credit.blocked


def test_a_stream_that_was_granted_everything_is_no_longer_a_waiting_producer(
    tmp_path: Path,
) -> None:
    """Only its END is to come; no credit would change anything."""
    stand = Stand(tmp_path / "shm", n_slots=100)
    stand.open(0)
    for step in range(100):
        stand.shard.credit.grant()
        stand.send(0, step)
    assert stand.shard.reservoir.n_available == 0
    assert not stand.shard.credit.blocked
    assert not stand.shard.credit.waits(stand.shard.streams[0])


def test_a_stream_whose_other_parts_never_came_does_not_hide_that_all_others_wait(
    stand: Stand,
) -> None:
    """Its worker hangs; until it is given up, training must not stand still."""
    stand.open(0)
    stand.shard.open(Header(Kind.OPEN, 0, 1, 2, n_parts=2, geometry=1), b"", b"peer", WHOLE)
    fill(stand)
    assert not stand.shard.streams[1].covered
    assert stand.granted(1) == 0
    assert stand.shard.credit.blocked


HALVES = [
    Plan(
        {0: read_target("u", (3,), np.array([0, 1, 3, at, n], dtype="<i8").tobytes())}, bytes([at])
    )
    for at, n in ((0, 1), (1, 2))
]
OTHERS = [
    Plan({0: read_target("u", (3,), np.array([1, 1, 3, *at], dtype="<i8").tobytes())}, bytes(at))
    for at in ((2,), (1, 0))
]


def open_in_two(stand: Stand, plans: list[Plan]) -> None:
    for part, plan in enumerate(plans):
        header = Header(Kind.OPEN, 0, 0, 1, part=part, n_parts=2, geometry=1)
        stand.shard.open(header, b"", b"peer", plan)


def test_a_restarted_shard_knows_the_layouts_again(stand: Stand) -> None:
    open_in_two(stand, HALVES)
    assert stand.shard.streams[0].covered
    stand.build()
    assert stand.shard.streams[0].covered
    open_in_two(stand, HALVES)
    assert stand.shard.streams[0].covered


@pytest.mark.parametrize(
    ("plans", "why"),
    [
        ([OTHERS[0], OTHERS[1]], "other layouts than before the restart"),
        ([HALVES[0], HALVES[0]], "part 1 overlaps another part"),
        ([OTHERS[0], HALVES[0]], "1 of 3 values belong to no part"),
    ],
)
def test_a_lease_cannot_change_its_layouts_over_a_restart(
    stand: Stand, plans: list[Plan], why: str
) -> None:
    """Half of a step may stand in its slot as the layouts before had it."""
    open_in_two(stand, HALVES)
    stand.build()
    with pytest.raises(Refusal, match=why):
        open_in_two(stand, plans)


def test_a_lease_cannot_change_the_layout_of_a_part(stand: Stand) -> None:
    open_in_two(stand, HALVES)
    with pytest.raises(Refusal, match="Part 0 of simulation 0 came with another layout"):
        open_in_two(stand, OTHERS[:2])


def test_values_name_the_plan_of_their_open(stand: Stand) -> None:
    stand.open(0)
    stand.shard.credit.grant()
    stand.send(0, 0)
    header = Header(Kind.PART, 0, 0, 1, 1, plan=7, fields=TABLE)
    with pytest.raises(Refusal, match="came in plan 7; part 0 opened simulation 0 with plan 0"):
        stand.shard.receive(header)


def test_slots_of_a_refused_stream_come_back(stand: Stand) -> None:
    stand.open(0)
    stand.shard.credit.grant()
    stand.shard.refuse(stand.shard.streams[0], Refusal("nan", "Because."))
    assert (stand.shard.credit.reserved, stand.shard.reservoir.n_available) == (0, 8)
    with pytest.raises(Refusal, match="Because"):
        stand.send(0, 0)
    with pytest.raises(Refusal, match="Because"):
        stand.open(0)


def test_the_last_segment_may_be_too_short_for_a_sample(tmp_path: Path) -> None:
    stand = Stand(tmp_path / "shm", segment_steps=3, window=2)
    stand.open(0)
    stand.shard.credit.grant()
    for step in range(4):
        stand.send(0, step)
    stand.end(0, 4)
    shard = stand.shard
    assert shard.delivered == {0: (1, 2)}
    assert (shard.admitted_samples, shard.counters["too_short"]) == (2, 1)
    assert len(shard.reservoir.stored) == 2
    shard.snapshot(0)
    assert shard.reservoir.n_available == 7  # nothing in it can be lost


def test_a_simulation_without_steps_is_complete_at_its_end(stand: Stand) -> None:
    stand.open(3)
    stand.end(3, 0)
    assert stand.shard.delivered == {3: (1, 0)}


def test_held_out_simulations_go_to_a_store_that_keeps_all(tmp_path: Path) -> None:
    stand = Stand(tmp_path / "shm", policy="keep")
    stand.open(0, role=1)
    fill(stand)
    with pytest.raises(Refusal, match="train simulation came to the wrong kind of shard"):
        stand.open(1, role=0)
    assert len(stand.shard.choose(5, unseen_only=False)) == 0
    stand.shard.snapshot(10)
    assert stand.shard.credit.grant() == []
    assert set(stand.shard.slab.descriptor["role"].tolist()) == {1}


def test_held_out_simulations_never_come_to_a_training_shard(stand: Stand) -> None:
    for role in (1, 2):
        with pytest.raises(Refusal, match="held-out data never mixes with training data"):
            stand.open(0, role=role)


def test_a_withdrawn_simulation_is_told_so_and_stays_away(stand: Stand) -> None:
    stand.open(0, lease=5)
    stand.shard.credit.grant()
    stand.shard.withdraw(0)
    assert stand.shard.credit.reserved == 0
    (stream, why), *rest = stand.shard.take_dismissed()
    assert (stream.lease, rest) == (5, [])
    assert "not wanted any more" in why
    with pytest.raises(Refusal, match="superseded"):
        stand.open(0, lease=5)


def test_superseding_a_lease_leaves_a_newer_one_alone(stand: Stand) -> None:
    stand.open(0, lease=5)
    stand.shard.supersede(0, 4)
    assert stand.shard.streams[0].lease == 5
    stand.shard.supersede(0, 5)
    assert 0 not in stand.shard.streams
    stand.open(0, lease=6)
    assert stand.shard.streams[0].lease == 6


def test_counts_are_the_same_after_a_restart(tmp_path: Path) -> None:
    stand = Stand(tmp_path / "shm", segment_steps=3, window=2)
    for simulation in range(3):
        stand.open(simulation)
    for simulation in (0, 1):
        for step in range(5):
            stand.shard.credit.grant()
            stand.send(simulation, step)
    stand.end(0, 5)
    stand.train(2)
    stand.shard.snapshot(stand.batch)
    before = stand.shard
    after = stand.build()
    assert after.admitted_samples == before.admitted_samples
    assert after.delivered.keys() == before.delivered.keys()
    assert after.reservoir.n_undrawn == before.reservoir.n_undrawn
    assert after.reservoir.n_available == before.reservoir.n_available
    assert after.credit.reserved == before.credit.reserved
    assert sorted(after.reservoir.free) == sorted(before.reservoir.free)
    left = {s.simulation: (s.granted, sorted(s.open)) for s in before.streams.values()}
    assert {s.simulation: (s.granted, sorted(s.open)) for s in after.streams.values()} == left


def test_fifo_keeps_its_order_over_a_restart(tmp_path: Path) -> None:
    stand = Stand(tmp_path / "shm", policy="fifo", segment_steps=2, window=1)
    stand.open(0)
    for step in range(10):
        stand.shard.credit.grant()
        stand.send(0, step)
    stand.train(3)  # the second segment is half drawn
    after = stand.build()
    samples = after.choose(100, unseen_only=False)
    slots, starts = np.divmod(samples, after.spec.windows)
    steps = after.slab.descriptor["segment"][slots] * 2 + starts
    assert steps.tolist() == [3, 4, 5, 6, 7, 8, 9]
