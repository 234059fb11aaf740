"""A receiver and those who are not the clients that it waits for: they harm themselves alone."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zmq
from door import NUMBERS, Door, door, standing
from hand_made import SHAPE, WHOLE, HandMade, content
from scripted import CAMPAIGN, wait_for

from penstock import wire
from penstock.wire import FieldEntry, Header, Kind
from penstock_server.peers import MOST_PLANS

__all__ = ["door", "standing"]

pytestmark = pytest.mark.timeout(60)
GOLDEN = Path(__file__).parents[1] / "golden"


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
