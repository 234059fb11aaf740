"""What a receiver does with what it should not get: it says so, and all other streams go on."""

from __future__ import annotations

import itertools
import random
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zmq
from hand_made import SHAPE, WHOLE, HandMade, content
from scripted import CAMPAIGN, ReceiverProcess, ScriptedCoordinator, wait_for

from penstock import wire
from penstock.arena import Arena
from penstock.wire import FieldEntry, Header, Kind
from penstock_server.intake import MOST_PLANS

pytestmark = pytest.mark.timeout(60)
GOLDEN = Path(__file__).parents[1] / "golden"
NUMBERS = itertools.count(1, 2)


class Door:
    """One receiver for all tests of this file: each leaves it as able as it was."""

    def __init__(self, folder: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.coordinator = ScriptedCoordinator({}, [])
        self.coordinator.start()
        self.receiver = ReceiverProcess(
            folder, self.coordinator.address, slots=4096, max_steps=400, journal=str(folder / "j")
        )
        wait_for(lambda: "0" in self.coordinator.reports, what="the receiver")

    def peer(self, **more: int) -> HandMade:
        campaign = more.pop("campaign", CAMPAIGN)
        return HandMade(self.context, self.receiver.settings.address, campaign, **more)

    def counter(self, name: str) -> float:
        return float(self.coordinator.reports["0"]["counters"].get(name, 0))

    def refusal(self, simulation: int) -> dict[str, object]:
        """What the coordinator was told of the simulation."""
        found: list[dict[str, object]] = []

        def told() -> bool:
            entries = list(self.coordinator.refused)
            found.extend(e for e in entries if e["simulation"] == simulation)
            return bool(found)

        wait_for(told, what="the refusal")
        return found[0]

    def delivers(self, simulation: int) -> None:
        wait_for(lambda: simulation in self.coordinator.delivered, what=f"simulation {simulation}")

    def works(self) -> None:
        """A new part with a new simulation is served as ever."""
        simulation = next(NUMBERS)
        peer = self.peer()
        peer.run(simulation, simulation, 3)
        assert not peer.refused
        peer.close()

    def close(self) -> None:
        self.receiver.stop()
        self.coordinator.stop()
        self.context.destroy(linger=0)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    door = Door(tmp_path_factory.mktemp("door"))
    yield door
    door.close()


@pytest.fixture
def door(standing: Door) -> Iterator[Door]:
    yield standing
    assert standing.receiver.process.poll() is None, standing.receiver.log()
    standing.works()


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


def test_messages_that_only_a_shard_sends_are_counted_and_dropped(door: Door) -> None:
    before = door.counter("malformed")
    peer = door.peer()
    peer.hello()
    for kind in (Kind.ACK, Kind.RESYNC, Kind.REFUSED):
        peer.send(kind)
    wait_for(lambda: door.counter("malformed") == before + 3)


def test_a_connection_that_sends_no_message_is_not_read_any_more(door: Door) -> None:
    """Its simulation goes on over a new one."""
    simulation = next(NUMBERS)
    before, malformed = door.counter("dropped_connections"), door.counter("malformed")
    peer = door.peer()
    peer.begin(simulation, simulation)
    peer.step(simulation, simulation, 0)
    peer.settle()
    peer.socket.send(b"PNST, or so it seems")
    wait_for(lambda: door.counter("dropped_connections") == before + 1)
    assert "is not read any more: " in door.receiver.log()
    peer.kinds.clear()
    peer.hello(greeting=2)
    peer.step(simulation, simulation, 1)
    wait_for(lambda: door.counter("malformed") == malformed + 3)
    assert not peer.socket.poll(50)
    again = door.peer()
    again.begin(simulation, simulation)
    again.step(simulation, simulation, 1)
    again.end(simulation, simulation, 2)
    again.settle()
    door.delivers(simulation)


def test_bytes_that_are_no_zeromq_hurt_nobody(door: Door) -> None:
    rng, simulation = np.random.default_rng(7), next(NUMBERS)
    bystander = door.peer()
    bystander.begin(simulation, simulation)
    host, port = door.receiver.settings.address.removeprefix("tcp://").split(":")
    beginnings = (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff", b"\xff" + bytes(8) + b"\x7f\x03", b"\0")
    for step, beginning in enumerate(beginnings * 4):
        with socket.create_connection((host, int(port)), timeout=10.0) as connection:
            with suppress(ConnectionError):  # it may be ended while it is at it
                connection.sendall(beginning + rng.bytes(int(rng.integers(1, 1 << 16))))
            bystander.until(lambda: bystander.granted[simulation] > step)  # noqa: B023
            bystander.step(simulation, simulation, step)
    bystander.end(simulation, simulation, 20)
    bystander.settle()
    assert not bystander.refused
    door.delivers(simulation)


def test_a_frame_beyond_the_limit_ends_the_connection_and_nothing_else(door: Door) -> None:
    """One of the field's size is 192 bytes, what is read of one at most 4 MiB and 4096."""
    simulation = next(NUMBERS)
    bystander, peer = door.peer(), door.peer()
    bystander.begin(simulation, simulation)
    monitor = peer.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    peer.hello()
    peer.send(Kind.PLAN, bytes((4 << 20) + 4097), plan=1)
    assert monitor.poll(20_000)
    peer.socket.disable_monitor()
    bystander.step(simulation, simulation, 0)
    bystander.end(simulation, simulation, 1)
    bystander.settle()
    door.delivers(simulation)


@pytest.mark.parametrize("kind", [Kind.PART, Kind.INPUT, Kind.END, Kind.FAIL, Kind.BUNCH])
def test_who_names_the_lease_of_another_connection_harms_itself_alone(
    door: Door, kind: Kind
) -> None:
    simulation = next(NUMBERS)
    before = door.counter("strange_messages")
    owner, stranger = door.peer(), door.peer()
    owner.begin(simulation, simulation)
    stranger.run(next(NUMBERS), simulation + 1, 2)
    entry = FieldEntry(0, 1, 192)
    nonsense = np.full(SHAPE, np.nan, "f4").tobytes()
    payloads = {Kind.PART: [nonsense], Kind.INPUT: [nonsense], Kind.BUNCH: [bytes(16), nonsense]}
    stranger.send(
        kind, *payloads.get(kind, ()), simulation=simulation, lease=simulation, step=1, plan=1,
        fields=(entry,) if kind in payloads else (),
    )  # fmt: skip
    stranger.settle()
    assert "This connection did not open part 0" in stranger.refused[simulation]
    owner.step(simulation, simulation, 0)
    owner.end(simulation, simulation, 1)
    owner.settle()
    assert not owner.refused
    door.delivers(simulation)
    wait_for(lambda: door.counter("strange_messages") == before + 1)
    assert not any(e["simulation"] == simulation for e in door.coordinator.refused)


def test_a_connection_speaks_for_its_own_part_alone(door: Door) -> None:
    simulation = next(NUMBERS)
    parts = [door.peer(part=i, n_parts=2) for i in range(2)]
    for i, peer in enumerate(parts):
        peer.hello()
        peer.plan(0, 2, 8, 6, 4 * i, 0, 4, 6)
        peer.open(simulation, simulation)
    for peer in parts:
        peer.until(lambda: peer.granted.get(simulation, 0) > 0)  # noqa: B023
    half = [content(simulation, 0)[4 * i : 4 * i + 4] for i in range(2)]
    parts[0].part = 1
    parts[0].step(simulation, simulation, 0, values=-half[1])
    parts[0].until(lambda: simulation in parts[0].refused)
    parts[0].part = 0
    for peer, values in zip(parts, half):
        peer.step(simulation, simulation, 0, values=values)
        peer.end(simulation, simulation, 1)
        peer.settle()
    assert not parts[1].refused
    door.delivers(simulation)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"plan": 9}, "names plan 9, which did not come"),
        ({"plan": 2}, "came with another layout than before"),
        ({"flags": 7}, "names role 7"),
        ({"step": 1, "geometry": 2}, "Parts disagree"),
        ({"n_parts": 2}, "Parts disagree"),
        ({"part": 1}, "Part 1 was named by a connection that greeted as 0"),
    ],
)
def test_a_wrong_open_of_a_running_lease_harms_its_sender_alone(
    door: Door, more: dict[str, int], why: str
) -> None:
    simulation = next(NUMBERS)
    owner, stranger = door.peer(), door.peer()
    owner.begin(simulation, simulation)
    owner.step(simulation, simulation, 0)
    stranger.hello()
    stranger.plan()
    stranger.plan(1, 2, *SHAPE, *range(47, -1, -1), plan=2)
    stranger.open(simulation, simulation, **more)
    stranger.until(lambda: simulation in stranger.refused)
    assert why in stranger.refused[simulation]
    owner.step(simulation, simulation, 1)
    owner.end(simulation, simulation, 2)
    owner.settle()
    assert not owner.refused
    door.delivers(simulation)


def test_a_part_may_come_over_a_new_connection_under_another_plan_number(door: Door) -> None:
    """Nothing of what the old connection sent is lost by it."""
    simulation = next(NUMBERS)
    old, new = door.peer(), door.peer()
    old.begin(simulation, simulation)
    new.hello()
    new.plan(plan=5)
    new.open(simulation, simulation, plan=5)
    new.settle()
    old.step(simulation, simulation, 0)
    old.settle()
    values = content(simulation, 1)
    new.send(
        Kind.PART, values.tobytes(), simulation=simulation, lease=simulation, step=1, t=0.1, plan=5,
        fields=(FieldEntry(0, 1, values.nbytes),),
    )  # fmt: skip
    new.end(simulation, simulation, 2)
    new.settle()
    assert not old.refused
    assert not new.refused
    door.delivers(simulation)


def test_what_a_part_sent_before_its_connection_ended_is_taken(door: Door) -> None:
    """Many messages that nobody is there for any more to be answered."""
    simulation, n = next(NUMBERS), 200
    peer, bystander = door.peer(), door.peer()
    bystander.begin(next(NUMBERS), 1)
    peer.begin(simulation, simulation)
    peer.until(lambda: peer.granted[simulation] >= n)
    for step in range(n):
        peer.step(simulation, simulation, step)
    peer.end(simulation, simulation, n)
    peer.socket.close(linger=5000)
    door.delivers(simulation)


@pytest.mark.parametrize("kind", [Kind.PART, Kind.BUNCH])
def test_steps_name_the_plan_that_their_open_named(door: Door, kind: Kind) -> None:
    """Another one of the same size would put the values to the wrong places."""
    simulation = next(NUMBERS)
    peer = door.peer()
    peer.begin(simulation, simulation)
    backwards = [1, 2, *SHAPE, *range(47, -1, -1)]
    peer.plan(*backwards, plan=2)
    values, numbers = content(simulation, 0), np.zeros(1, wire.STEP).tobytes()
    frames = [values.tobytes()] if kind == Kind.PART else [numbers, values.tobytes()]
    peer.send(
        kind, *frames, simulation=simulation, lease=simulation, step=int(kind == Kind.BUNCH),
        plan=2, fields=(FieldEntry(0, 1, values.nbytes),),
    )  # fmt: skip
    peer.until(lambda: simulation in peer.refused)
    assert "came in plan 2; part 0 opened simulation" in peer.refused[simulation]
    assert door.refusal(simulation)["kind"] == "layout"


def test_a_lease_keeps_its_layout(door: Door) -> None:
    simulation = next(NUMBERS)
    peer = door.peer()
    peer.begin(simulation, simulation)
    peer.step(simulation, simulation, 0)
    peer.open(simulation, simulation)  # says nothing new
    peer.settle()
    assert not peer.refused
    peer.plan(1, 2, *SHAPE, *range(47, -1, -1), plan=2)
    peer.open(simulation, simulation, plan=2)
    peer.until(lambda: simulation in peer.refused)
    assert "another layout than before" in peer.refused[simulation]


def test_the_newest_plans_of_a_connection_are_known(door: Door) -> None:
    first, last = next(NUMBERS), next(NUMBERS)
    peer = door.peer()
    peer.hello()
    for plan in range(1, MOST_PLANS + 2):
        peer.plan(plan=plan)
    peer.open(first, first, plan=1)
    peer.until(lambda: first in peer.refused)
    assert "names plan 1, which did not come" in peer.refused[first]
    peer.open(last, last, plan=2)
    peer.until(lambda: peer.granted.get(last, 0) > 0)


def test_thousands_of_random_messages_hurt_nobody(door: Door) -> None:
    rng, random_ = np.random.default_rng(5), random.Random(5)
    simulation = next(NUMBERS)
    bystander = door.peer()
    bystander.begin(simulation, simulation)
    before = door.counter("malformed") + door.counter("foreign")
    golden = [path.read_bytes() for path in sorted(GOLDEN.glob("*.0.bin"))]
    noisy, loud = [door.peer() for _ in range(4)], [door.peer()]
    for peer in noisy:
        peer.hello()
        peer.plan()
    for i in range(4000):
        roll = random_.random()
        if i % 20 == 0:  # after the first of its messages nothing is read
            loud.append(door.peer())
            loud[-1].hello()
            loud[-1].plan()
        peer = loud[-1] if roll < 0.6 else random_.choice([*noisy, loud[-1]])
        if roll < 0.2:
            head = rng.bytes(random_.randrange(0, 300))
        elif roll < 0.4:
            damaged = bytearray(random_.choice(golden))
            for _ in range(random_.randrange(1, 4)):
                damaged[random_.randrange(len(damaged))] = random_.randrange(256)
            head = bytes(damaged)
        elif roll < 0.6:
            head = plausible(random_, peer)
        else:
            head = b""
            nearly_right(random_, peer)
        n_frames = random_.choice([0, 1, 1, 2])
        frames = [rng.bytes(random_.choice([0, 1, 16, 192, 500])) for _ in range(n_frames)]
        if head:
            peer.socket.send_multipart([head, *frames])
        if i % 400 == 0:
            step = i // 400
            bystander.step(simulation, simulation, step)
    bystander.end(simulation, simulation, 10)
    bystander.settle()
    assert not bystander.refused
    door.delivers(simulation)
    wait_for(lambda: door.counter("malformed") + door.counter("foreign") > before + 1000)


def nearly_right(random_: random.Random, peer: HandMade) -> None:
    """What a client might say, in any order, with a wrong number here and there."""
    pick = random_.choice
    simulation, lease = pick([10**7, 10**7 + 1]), pick([1, 1, 2])
    kind = pick(
        [Kind.HELLO, Kind.PLAN, Kind.OPEN, Kind.OPEN, *[Kind.PART] * 6, Kind.END, Kind.FAIL]
    )
    if kind == Kind.HELLO:
        peer.hello()
    elif kind == Kind.PLAN:
        peer.plan(*pick([WHOLE, WHOLE, [0, 2, *SHAPE, 0, 0, 4, 6], [1, 2, *SHAPE, 5, 7]]))
    elif kind == Kind.OPEN:
        peer.open(simulation, lease, n_parts=pick([1, 1, 2]))
    elif kind == Kind.PART:
        peer.step(simulation, lease, random_.randrange(70))
    else:
        peer.send(kind, simulation=simulation, lease=lease, step=random_.randrange(5))


def plausible(random_: random.Random, peer: HandMade) -> bytes:
    """A header of this campaign and of the right number, with anything in it."""
    pick, most = random_.choice, 2**32 - 1
    entry = FieldEntry(pick([0, 1, 65535]), pick([0, 1, 4, 255]), pick([0, 16, 192, 2**64 - 1]))
    header = Header(
        pick([kind for kind in Kind if kind not in (Kind.HELLO, Kind.BYE)]),
        CAMPAIGN,
        simulation=pick([10**6, 10**6 + 1, 2**64 - 1]),
        lease=pick([0, 1, 2, most]),
        step=pick([0, 1, 199, 200, most]),
        part=pick([0, 1, 2, 3, 65535]),
        n_parts=pick([0, 1, 2, 4, 65535]),
        plan=pick([0, 1, 1, 2, most]),
        geometry=pick([0, 1, 2, most]),
        flags=pick([0, 0, 1, 2, most]),
        sequence=peer.sequence,
        fields=(entry,) * pick([0, 1, 1, 3]),
    )
    peer.sequence += header.kind != Kind.PROBE
    return bytes(wire.encode(header))
