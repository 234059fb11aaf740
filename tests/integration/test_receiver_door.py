"""What a receiver does with what it should not get: it says so, and all other streams go on."""

from __future__ import annotations

import re

import numpy as np
import pytest
from door import NUMBERS, Door, door, standing
from hand_made import SHAPE, HandMade, content
from scripted import CAMPAIGN, wait_for

from penstock import wire
from penstock.arena import Arena
from penstock.wire import FieldEntry, Kind

__all__ = ["door", "standing"]

pytestmark = pytest.mark.timeout(60)


def test_frames_of_another_campaign_are_counted_and_dropped(door: Door) -> None:
    before = door.counter("foreign")
    stranger = door.peer(campaign=CAMPAIGN + 1)
    stranger.hello()
    stranger.plan()
    stranger.open(next(NUMBERS), 1)
    wait_for(lambda: door.counter("foreign") == before + 3)
    assert not stranger.socket.poll(50)


def test_a_part_that_did_not_greet_is_asked_to(door: Door) -> None:
    peer = door.peer()
    peer.plan()
    peer.until(lambda: peer.kinds == [Kind.RESYNC])
    peer.hello(greeting=2)
    peer.plan()
    peer.settle()


def test_a_gap_in_the_numbers_is_answered_with_resync(door: Door) -> None:
    simulation = next(NUMBERS)
    peer = door.peer()
    peer.begin(simulation, simulation)
    peer.sequence += 1
    peer.step(simulation, simulation, 0)
    peer.until(lambda: Kind.RESYNC in peer.kinds)
    peer.hello(greeting=2)
    peer.plan()
    peer.open(simulation, simulation)
    peer.step(simulation, simulation, 0)
    peer.end(simulation, simulation, 1)
    peer.settle()
    door.delivers(simulation)


def test_a_repeated_number_is_acknowledged_again_and_dropped(door: Door) -> None:
    simulation = next(NUMBERS)
    before = door.counter("repeated_messages")
    peer = door.peer()
    peer.begin(simulation, simulation)
    for _ in range(3):
        peer.step(simulation, simulation, 0)
        peer.sequence -= 1
    peer.sequence += 1
    peer.end(simulation, simulation, 1)
    peer.settle()
    door.delivers(simulation)
    wait_for(lambda: door.counter("repeated_messages") == before + 2)


def test_a_repeated_step_is_compared_and_counted(door: Door) -> None:
    simulation = next(NUMBERS)
    before = door.counter("duplicates")
    peer = door.peer()
    peer.begin(simulation, simulation)
    for _ in range(3):
        peer.step(simulation, simulation, 0)
    peer.end(simulation, simulation, 1)
    peer.settle()
    door.delivers(simulation)
    wait_for(lambda: door.counter("duplicates") == before + 2)


BUNCH_ERRORS = [
    ([], 0, "of 1 fields has 0"),
    ([bytes(16), bytes(384)], 2, "A bunch of 2 steps names 1"),
    ([bytes(32), bytes(384), b""], 2, "of 1 fields has 2"),
    ([bytes(32), bytes(383)], 2, "not as long as its header says"),
    ([bytes(32)], 2, "of 1 fields has 0"),
]


@pytest.mark.parametrize(("frames", "n", "why"), BUNCH_ERRORS)
def test_a_wrong_bunch_ends_its_simulation_alone(
    door: Door, frames: list[bytes], n: int, why: str
) -> None:
    simulation, other = next(NUMBERS), next(NUMBERS)
    peer, bystander = door.peer(), door.peer()
    bystander.begin(other, other)
    peer.begin(simulation, simulation)
    entry = FieldEntry(0, 1, 192)
    header = {"simulation": simulation, "lease": simulation, "plan": 1, "fields": (entry,)}
    peer.send(Kind.BUNCH, *frames, step=n, **header)
    peer.until(lambda: simulation in peer.refused)
    assert why in peer.refused[simulation]
    bystander.step(other, other, 0)
    bystander.until(lambda: bystander.acknowledged == bystander.sequence)


def test_a_bunch_with_a_bad_step_names_that_step(door: Door) -> None:
    simulation = next(NUMBERS)
    peer = door.peer()
    peer.begin(simulation, simulation)
    values = np.zeros((3, 48), "<f4")
    values[1, 5] = np.nan
    steps = np.zeros(3, wire.STEP)
    steps["step"] = [0, 1, 2]
    entry = FieldEntry(0, 1, 192)
    header = {"simulation": simulation, "lease": simulation, "plan": 1, "fields": (entry,)}
    peer.send(Kind.BUNCH, steps.tobytes(), values.tobytes(), step=3, **header)
    peer.until(lambda: simulation in peer.refused)
    assert "at step 1" in peer.refused[simulation]
    assert door.refusal(simulation)["kind"] == "nan"


def test_a_repeated_step_with_other_values_is_refused(door: Door) -> None:
    simulation = next(NUMBERS)
    peer = door.peer()
    peer.begin(simulation, simulation)
    peer.step(simulation, simulation, 0)
    peer.step(simulation, simulation, 0, values=content(simulation, 0) + 7)
    peer.until(lambda: simulation in peer.refused)
    assert "does not reproduce itself" in peer.refused[simulation]
    assert door.refusal(simulation)["kind"] == "unreproducible"


def send_part(peer: HandMade, simulation: int, *frames: bytes, **more: object) -> None:
    entry = FieldEntry(0, 1, 48 * 4)
    header = {"simulation": simulation, "lease": simulation, "plan": 1, "fields": (entry,), **more}
    peer.send(Kind.PART, *frames, **header)


@pytest.mark.parametrize(
    ("frames", "more", "why", "kind"),
    [
        ([], {}, "of 1 fields was truncated", "shape"),
        ([bytes(192), bytes(192)], {}, "more frames than its header names", "shape"),
        ([bytes(100)], {}, "A field of 192 bytes came with 100", "shape"),
        ([bytes(5000)], {}, "A field of 192 bytes came with 5000", "shape"),
        ([bytes(96)], {"fields": (FieldEntry(0, 1, 96),)}, "96 bytes; 1 .* and 192", "shape"),
        ([bytes(192)], {"fields": (FieldEntry(0, 3, 192),)}, "dtype code 3", "shape"),
        ([bytes(192)], {"fields": (FieldEntry(9, 1, 192),)}, "Field number 9", "undeclared"),
        ([], {"fields": ()}, "carries 0 fields; the campaign declares u", "undeclared"),
        ([bytes(192)] * 2, {"fields": (FieldEntry(0, 1, 192),) * 2}, "2 fields", "undeclared"),
        ([bytes(192)], {"step": 400}, "the campaign allows 400", "steps"),
        ([bytes(192)], {"step": 350}, "Segment 350 came without credit; 256 segm", "credit"),
        ([bytes(8)], {"fields": (FieldEntry(0, 1, 192, wire.LENT),)}, "was not lent", "shape"),
    ],
)  # fmt: skip
def test_a_wrong_part_is_refused_with_the_reason_and_ends_its_simulation_alone(
    door: Door, frames: list[bytes], more: dict[str, object], why: str, kind: str
) -> None:
    simulation, other = next(NUMBERS), next(NUMBERS)
    peer, bystander = door.peer(), door.peer()
    bystander.begin(other, other)
    bystander.step(other, other, 0)
    peer.begin(simulation, simulation)
    send_part(peer, simulation, *frames, **more)
    peer.until(lambda: simulation in peer.refused)
    peer.settle()  # refused messages are acknowledged too
    assert re.search(why, peer.refused[simulation]), peer.refused[simulation]
    told = door.refusal(simulation)
    assert (told["lease"], told["kind"]) == (simulation, kind)
    bystander.step(other, other, 1)
    bystander.end(other, other, 2)
    bystander.settle()
    assert not bystander.refused
    door.delivers(other)


@pytest.mark.parametrize("kind", [Kind.PART, Kind.INPUT, Kind.BUNCH])
def test_lent_fields_of_any_size_are_not_read_before_they_are_known(door: Door, kind: Kind) -> None:
    """A sparse memory costs a client nothing; a copy of it would cost the receiver its life."""
    arena = Arena(1 << 40)
    simulation = next(NUMBERS)
    peer = door.peer()
    peer.hello(1, arena.offer)
    peer.plan()
    peer.open(simulation, simulation)
    entry = FieldEntry(0, 1, 1 << 39, wire.LENT)
    frames = [bytes(np.zeros(1, wire.STEP)), bytes(8)] if kind == Kind.BUNCH else [bytes(8)]
    peer.send(
        kind, *frames, simulation=simulation, lease=simulation, plan=1, fields=(entry,),
        step=int(kind == Kind.BUNCH),
    )  # fmt: skip
    peer.settle()
    assert simulation in peer.refused
    assert peer.flags & wire.BORROWS
    arena.close()


def test_a_new_connection_of_a_lender_takes_the_place_of_the_old_one(door: Door) -> None:
    arena = Arena(1000)
    old, new = door.peer(), door.peer()
    old.hello(1, arena.offer)
    old.plan()
    old.settle()
    new.hello(1, arena.offer)
    new.plan()
    new.settle()
    old.plan()
    old.until(lambda: Kind.RESYNC in old.kinds)  # it is not known any more
    arena.close()


def test_a_part_without_open_is_refused(door: Door) -> None:
    simulation = next(NUMBERS)
    peer = door.peer()
    peer.hello()
    peer.plan()
    peer.step(simulation, simulation, 0)
    peer.until(lambda: simulation in peer.refused)
    assert "is not open here" in peer.refused[simulation]


@pytest.mark.parametrize(
    ("more", "why", "kind"),
    [
        ({"plan": 2}, "names plan 2, which did not come", "layout"),
        ({"n_parts": 5}, "Part 0 of 5 came; this campaign allows 4 parts", "layout"),
        ({"n_parts": 0}, "Part 0 of 0 came", "layout"),
        ({"step": 1}, "names shard 1 of 1", "layout"),
        ({"flags": 1}, "held-out data never mixes with training data", "role"),
        ({"flags": 3}, "names role 3", "role"),
    ],
)
def test_a_wrong_open_is_refused(door: Door, more: dict[str, int], why: str, kind: str) -> None:
    simulation = next(NUMBERS)
    peer = door.peer()
    peer.hello()
    peer.plan()
    peer.open(simulation, simulation, **more)
    peer.until(lambda: simulation in peer.refused)
    assert why in peer.refused[simulation]
    assert door.refusal(simulation)["kind"] == kind


def test_a_plan_that_does_not_fit_is_told_with_the_simulation_that_uses_it(door: Door) -> None:
    simulation = next(NUMBERS)
    peer = door.peer()
    peer.hello()
    peer.plan(0, 2, 8, 6, 0, 0, 9, 6)
    peer.open(simulation, simulation)
    peer.until(lambda: simulation in peer.refused)
    assert "has a box at [0, 0] of [9, 6] in (8, 6)" in peer.refused[simulation]
    assert door.refusal(simulation)["kind"] == "layout"


@pytest.mark.parametrize(
    ("shares", "why"),
    [
        ([(0, 4), (5, 3)], "6 of 48 values belong to no part"),
        ([(0, 5), (4, 4)], "part 1 overlaps another part"),
    ],
)
def test_parts_that_do_not_cover_the_field_once_are_refused_before_any_step(
    door: Door, shares: list[tuple[int, int]], why: str
) -> None:
    simulation = next(NUMBERS)
    parts = [door.peer(part=i, n_parts=2) for i in range(2)]
    for peer, (start, rows) in zip(parts, shares):
        peer.hello()
        peer.plan(0, 2, 8, 6, start, 0, rows, 6)
        peer.open(simulation, simulation)
    for peer in parts:
        peer.until(lambda: simulation in peer.refused)  # noqa: B023
        assert why in peer.refused[simulation]
        assert not peer.granted.get(simulation)


def test_a_part_that_opens_after_the_refusal_hears_of_it(door: Door) -> None:
    """It would wait for credit for ever."""
    simulation = next(NUMBERS)
    first, second = door.peer(part=0, n_parts=2), door.peer(part=1, n_parts=2)
    first.hello()
    first.plan(0, 2, 8, 6, 0, 0, 4, 6)
    first.open(simulation, simulation)
    first.open(simulation, simulation, n_parts=3)
    first.until(lambda: simulation in first.refused)
    second.hello()
    second.plan(0, 2, 8, 6, 4, 0, 4, 6)
    second.open(simulation, simulation)
    second.until(lambda: simulation in second.refused)
    assert "Parts disagree" in second.refused[simulation]


def test_an_end_before_steps_that_came_is_refused(door: Door) -> None:
    simulation = next(NUMBERS)
    peer = door.peer()
    peer.begin(simulation, simulation)
    for step in range(3):
        peer.step(simulation, simulation, step)
    peer.end(simulation, simulation, 2)
    peer.until(lambda: simulation in peer.refused)
    assert "ended after 2 steps, and more of it came: 3" in peer.refused[simulation]


def test_an_end_without_all_steps_is_refused(door: Door) -> None:
    simulation = next(NUMBERS)
    peer = door.peer()
    peer.begin(simulation, simulation)
    for step in (0, 2):
        peer.step(simulation, simulation, step)
    peer.end(simulation, simulation, 3)
    peer.until(lambda: simulation in peer.refused)
    assert "ended after 3 steps, and some of them never came" in peer.refused[simulation]
    assert door.refusal(simulation)["kind"] == "steps"
    again = door.peer()
    again.run(simulation, simulation + 1, 5)  # nothing is held against the next attempt
    door.delivers(simulation)


def test_a_refused_attempt_says_nothing_about_the_number_of_steps(door: Door) -> None:
    simulation = next(NUMBERS)
    bad, good = door.peer(), door.peer()
    bad.begin(simulation, 3000)
    bad.step(simulation, 3000, 0, values=np.full(SHAPE, np.nan, dtype="f4"))
    bad.end(simulation, 3000, 1)
    bad.settle()
    assert "not finite" in bad.refused[3000]
    good.run(simulation, 3001, 5)
    assert not good.refused
    door.delivers(simulation)


def test_a_step_after_the_end_is_refused(door: Door) -> None:
    simulation = next(NUMBERS)
    parts = [door.peer(part=i, n_parts=2) for i in range(2)]
    for i, peer in enumerate(parts):
        peer.hello()
        peer.plan(0, 2, 8, 6, 4 * i, 0, 4, 6)
        peer.open(simulation, simulation)
    for peer in parts:
        peer.until(lambda: peer.granted.get(simulation, 0) > 3)  # noqa: B023
    parts[0].end(simulation, simulation, 2)
    parts[0].settle()
    parts[1].step(simulation, simulation, 2, values=content(simulation, 2)[4:])
    parts[1].until(lambda: simulation in parts[1].refused)
    assert "ended after 2" in parts[1].refused[simulation]


def test_a_lower_lease_is_refused_and_the_higher_one_goes_on(door: Door) -> None:
    simulation, lease = next(NUMBERS), 1000
    old, new = door.peer(), door.peer()
    old.begin(simulation, lease)
    old.step(simulation, lease, 0)
    old.settle()
    new.begin(simulation, lease + 1)
    old.until(lambda: lease in old.refused)  # told at once, also if it waits for credit
    old.step(simulation, lease, 1)
    old.end(simulation, lease, 2)
    old.settle()
    for step in range(3):
        new.step(simulation, lease + 1, step)
    new.end(simulation, lease + 1, 3)
    new.settle()
    assert not new.refused
    door.delivers(simulation)


def test_a_lease_that_the_coordinator_gave_up_hears_of_it(door: Door) -> None:
    simulation = next(NUMBERS)
    peer = door.peer()
    peer.begin(simulation, simulation)
    door.coordinator.orders["superseded"] = [[simulation, simulation]]
    peer.until(lambda: simulation in peer.refused)
    door.coordinator.orders["superseded"] = []
    again = door.peer()
    again.begin(simulation, simulation)
    assert "superseded" in again.refused[simulation]


def test_a_new_attempt_of_a_delivered_simulation_is_led_through_to_its_end(door: Door) -> None:
    """Another shard of it may still need its segments."""
    simulation = next(NUMBERS)
    first, again = door.peer(), door.peer()
    first.run(simulation, 2000, 4)
    door.delivers(simulation)
    again.run(simulation, 2001, 4)
    assert not again.refused
