"""The sender: what is unacknowledged is kept, one way of recovery, deadlines that count silence."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import zmq

from penstock import sender as senders
from penstock import wire
from penstock.errors import ConnectionLost
from penstock.sender import Sender
from penstock.wire import Header, Kind

CAMPAIGN = 77


def bind(socket: zmq.Socket[bytes], address: str) -> None:
    """Binds as soon as the socket that was closed there is gone."""
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.bind(address)
            return
        except zmq.ZMQError:
            assert time.monotonic() < deadline, f"{address} stays in use."


class FakeShard:
    """A shard's socket, spoken through by hand."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str = "") -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        if not address:
            address = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        else:
            bind(self.socket, address)
        self.address = address
        self.peer = b""

    def receive(self) -> tuple[Header, list[bytes]]:
        assert self.socket.poll(10_000), "No message came."
        self.peer, head, *payloads = self.socket.recv_multipart()
        return wire.decode(head), payloads

    def expect(self, *kinds: Kind) -> list[Header]:
        headers = [self.receive()[0] for _ in kinds]
        assert [header.kind for header in headers] == list(kinds)
        return headers

    def quiet(self) -> bool:
        return not self.socket.poll(50)

    def say(self, header: Header, *frames: bytes) -> None:
        self.socket.send_multipart([self.peer, bytes(wire.encode(header)), *frames])

    def acknowledge(self, sequence: int, greeting: int = 1, *grants: tuple[int, int]) -> None:
        frames = [wire.encode_grants(grants)] if grants else []
        self.say(Header(Kind.ACK, CAMPAIGN, step=greeting, sequence=sequence), *frames)

    def resync(self) -> None:
        self.say(Header(Kind.RESYNC, CAMPAIGN))

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def shard(context: zmq.Context[zmq.Socket[bytes]]) -> FakeShard:
    return FakeShard(context)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "PROBE_S", 0.05)


def connect(context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard, **more: float) -> Sender:
    identity = Header(Kind.HELLO, CAMPAIGN, part=2, n_parts=5)
    settings = {"window_bytes": 1 << 20, **more}
    return Sender(context, "0", shard.address, identity, **settings)  # type: ignore[arg-type]


def step(number: int) -> tuple[Header, list[np.ndarray]]:
    values = np.full(10, number, dtype="f4")
    entries = (wire.FieldEntry(0, 1, values.nbytes),)
    return Header(Kind.PART, CAMPAIGN, 1, 4, number, 2, 5, fields=entries), [values]


def settle(sender: Sender) -> None:
    """Reads what the shard has said."""
    deadline = time.monotonic() + 10
    while not sender._socket.poll(10):
        assert time.monotonic() < deadline, "The shard said nothing."
    sender.flow()


def test_a_part_greets_first_and_numbers_its_messages(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard)
    for number in range(3):
        sender.post(*step(number))
    hello, *parts = shard.expect(Kind.HELLO, Kind.PART, Kind.PART, Kind.PART)
    assert (hello.campaign, hello.part, hello.n_parts, hello.step) == (CAMPAIGN, 2, 5, 1)
    assert [part.sequence for part in parts] == [0, 1, 2]


def test_payloads_of_any_size_arrive_as_they_are(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard)
    arrays = [np.arange(n, dtype="f8") for n in (0, 1, 100_000)] + [np.array(2.5)]
    sender.post(Header(Kind.PART, CAMPAIGN), arrays)
    shard.expect(Kind.HELLO)
    assert shard.receive()[1] == [array.tobytes() for array in arrays]


def test_a_receiver_that_reads_our_memory_is_given_less_at_a_time(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senders, "LENT_WINDOW_BYTES", 300)
    sender = connect(context, shard)
    for number in range(4):
        sender.post(*step(number))
    assert sender.has_room()
    shard.expect(Kind.HELLO, *[Kind.PART] * 4)
    shard.say(Header(Kind.ACK, CAMPAIGN, step=1, sequence=0, flags=wire.BORROWS))
    settle(sender)
    assert not sender.has_room()
    shard.say(Header(Kind.ACK, CAMPAIGN, step=1, sequence=2, flags=wire.BORROWS))
    settle(sender)
    assert sender.has_room()
    monkeypatch.setattr(senders, "LENT_WINDOW_BYTES", 1)
    assert not sender.has_room()
    shard.say(Header(Kind.ACK, CAMPAIGN, step=1, sequence=3, flags=wire.BORROWS))
    settle(sender)
    assert sender.has_room()  # for a second message, of any size


def test_an_acknowledgement_frees_all_messages_below_it(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard, window_bytes=300)
    size = 64 + 16 + 40
    for number in range(3):
        assert sender.has_room()
        sender.post(*step(number))
    assert not sender.has_room()
    assert sender.unacked_bytes == 3 * size
    shard.expect(Kind.HELLO, Kind.PART, Kind.PART, Kind.PART)
    shard.acknowledge(2)
    settle(sender)
    assert sender.unacked_bytes == size
    shard.acknowledge(1)  # late: cumulative ones never take back
    settle(sender)
    assert sender.unacked_bytes == size
    shard.acknowledge(3)
    sender.drain()
    assert sender.unacked_bytes == 0


def test_there_is_much_room_in_half_of_the_window(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    size = 64 + 16 + 40
    sender = connect(context, shard, window_bytes=4 * size)
    for number in range(4):
        sender.post(*step(number))
    shard.expect(Kind.HELLO, *[Kind.PART] * 4)
    shard.acknowledge(1)
    settle(sender)
    assert sender.has_room() and not sender.has_much_room()
    shard.acknowledge(2)
    settle(sender)
    assert sender.has_much_room()


def test_of_what_is_lent_one_message_is_much_room_for_another(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 64 + 16 + 40
    monkeypatch.setattr(senders, "LENT_WINDOW_BYTES", 4 * size)
    sender = connect(context, shard)
    for number in range(4):
        sender.post(*step(number))
    shard.expect(Kind.HELLO, *[Kind.PART] * 4)

    def acknowledge(sequence: int) -> None:
        shard.say(Header(Kind.ACK, CAMPAIGN, step=1, sequence=sequence, flags=wire.BORROWS))
        settle(sender)

    acknowledge(1)
    assert sender.has_room() and not sender.has_much_room()
    acknowledge(2)
    assert sender.has_much_room()
    monkeypatch.setattr(senders, "LENT_WINDOW_BYTES", 1)
    assert not sender.has_much_room()
    acknowledge(3)
    assert sender.has_much_room()


def test_of_a_window_smaller_than_a_step_nothing_may_be_out(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard, window_bytes=1)
    sender.post(*step(0))
    assert not sender.has_much_room()
    shard.expect(Kind.HELLO, Kind.PART)
    shard.acknowledge(1)
    settle(sender)
    assert sender.has_much_room()


def test_memory_that_is_used_again_has_one_frame(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard)
    returned: list[np.ndarray] = []
    large, small = np.empty(100_000, "f4"), np.empty(10, "f4")
    for number in range(3):
        large[:], small[:] = number, -number
        sender.post(Header(Kind.PART, CAMPAIGN), [large, small], give_back=returned.append)
        if not number:
            shard.expect(Kind.HELLO)
        assert shard.receive()[1] == [large.tobytes(), small.tobytes()]
        shard.acknowledge(number + 1)
        settle(sender)
    assert [id(array) for array in returned] == 3 * [id(large), id(small)]
    assert [array is large for array, _ in sender._frames._made.values()] == [True]
    sender.close()
    assert not sender._frames._made


def test_parts_of_memory_and_what_is_sent_once_leave_no_frame_behind(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard)
    block = np.arange(200_000, dtype="f4")
    part = block[:100_000]
    sender.post(Header(Kind.PART, CAMPAIGN), [part], [block], give_back=lambda array: None)
    sender.post(Header(Kind.PART, CAMPAIGN), [block])
    shard.expect(Kind.HELLO)
    assert [shard.receive()[1] for _ in range(2)] == [[part.tobytes()], [block.tobytes()]]
    assert not sender._frames._made


def test_after_a_resync_everything_is_sent_again_under_new_numbers(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard)
    sender.announce("plan", Header(Kind.PLAN, CAMPAIGN, plan=1), [])
    sender.announce("open", Header(Kind.OPEN, CAMPAIGN, 1, 4), [np.zeros(2)])
    for number in range(3):
        sender.post(*step(number))
    shard.expect(Kind.HELLO, Kind.PLAN, Kind.OPEN, Kind.PART, Kind.PART, Kind.PART)
    shard.acknowledge(4)
    settle(sender)
    shard.resync()
    settle(sender)
    hello, plan, opened, *rest = shard.expect(Kind.HELLO, Kind.PLAN, Kind.OPEN, Kind.PART)
    assert hello.step == 2
    assert [h.sequence for h in (plan, opened, *rest)] == [0, 1, 2]
    assert rest[0].step == 2
    shard.acknowledge(3, greeting=1)  # of the time before
    settle(sender)
    assert sender.unacked_bytes
    shard.acknowledge(3, greeting=2)
    sender.drain()


def test_several_resyncs_to_old_messages_are_answered_once(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    """A restarted shard finds a queue of probes; the window must not be sent for each of them."""
    sender = connect(context, shard)
    sender.post(*step(0))
    shard.expect(Kind.HELLO, Kind.PART)
    shard.acknowledge(0)
    settle(sender)
    for _ in range(5):
        shard.resync()
    settle(sender)
    shard.expect(Kind.HELLO, Kind.PART)
    assert shard.quiet()
    shard.acknowledge(1, greeting=2)
    sender.drain()
    shard.resync()
    settle(sender)
    assert shard.expect(Kind.HELLO)[0].step == 3


def test_an_announcement_lives_until_what_was_said_under_it_is_acknowledged(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard)
    sender.announce("open", Header(Kind.OPEN, CAMPAIGN, 1, 4), [])
    sender.post(*step(0))
    sender.withdraw("open")
    shard.expect(Kind.HELLO, Kind.OPEN, Kind.PART)
    shard.acknowledge(1)
    settle(sender)
    shard.resync()
    settle(sender)
    shard.expect(Kind.HELLO, Kind.OPEN, Kind.PART)
    shard.acknowledge(2, greeting=2)
    sender.drain()
    shard.resync()
    settle(sender)
    shard.expect(Kind.HELLO)
    assert shard.quiet()


def test_credit_counts_in_total_and_never_shrinks(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard)
    shard.expect(Kind.HELLO)
    assert sender.granted(4) == 0
    shard.acknowledge(0, 1, (4, 6), (5, 1))
    settle(sender)
    shard.acknowledge(0, 1, (4, 2))
    settle(sender)
    assert (sender.granted(4), sender.granted(5), sender.granted(6)) == (6, 1, 0)
    sender.forget(4)
    assert sender.granted(4) == 0


def test_a_refusal_names_its_lease_and_ends_the_waiting(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard)
    shard.expect(Kind.HELLO)
    shard.say(Header(Kind.REFUSED, CAMPAIGN, 1, 4), "Because of Ä.".encode())
    sender.wait(lambda: 4 in sender.refused, "the refusal")
    assert sender.refused == {4: "Because of Ä."}
    sender.forget(4)
    assert sender.refused == {}


@pytest.mark.usefixtures("quick")
def test_a_shard_that_is_full_and_says_so_is_waited_for_beyond_the_deadline(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard, patience_s=0.3)
    shard.expect(Kind.HELLO)
    answers = 0
    began = time.monotonic()

    def ready() -> bool:
        nonlocal answers
        if shard.socket.poll(0):
            assert shard.receive()[0].kind == Kind.PROBE
            answers += 1
            grants = [(4, 1)] if answers > 12 else []
            shard.acknowledge(0, 1, *grants)
        return sender.granted(4) > 0

    sender.wait(ready, "room in the reservoir")
    assert time.monotonic() - began > 0.5


@pytest.mark.usefixtures("quick")
def test_a_silent_shard_is_given_up_in_a_full_sentence(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard, patience_s=0.2)
    sender.post(*step(0))
    with pytest.raises(ConnectionLost, match=r"Shard 0 has not answered .* waited for acknowl"):
        sender.drain()


@pytest.mark.usefixtures("quick")
def test_a_solver_that_computed_for_long_is_not_counted_as_silence(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard, patience_s=0.2)
    sender._heard_s -= 3600.0
    shard.expect(Kind.HELLO)
    shard.acknowledge(0, 1, (4, 1))
    sender.wait(lambda: sender.granted(4) > 0, "credit")


@pytest.mark.usefixtures("quick")
def test_an_overdue_acknowledgement_is_asked_for_while_nothing_else_is_sent(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    """The last message of a campaign, whose shard was restarted meanwhile."""
    sender = connect(context, shard)
    shard.expect(Kind.HELLO)
    sender.flow()
    assert shard.quiet()  # nothing is due
    sender.post(*step(0))
    shard.expect(Kind.PART)
    deadline = time.monotonic() + 10
    while not shard.socket.poll(10):
        sender.flow()
        assert time.monotonic() < deadline
    probe = shard.expect(Kind.PROBE)[0]
    assert probe.sequence == 1


@pytest.mark.usefixtures("quick")
def test_a_shard_that_comes_back_on_its_address_gets_everything(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard, patience_s=20.0)
    sender.announce("open", Header(Kind.OPEN, CAMPAIGN, 1, 4), [])
    sender.post(*step(0))
    shard.expect(Kind.HELLO, Kind.OPEN, Kind.PART)
    shard.close()
    again = FakeShard(context, shard.address)
    got: list[Kind] = []
    greeting = 0

    def serve() -> bool:
        nonlocal greeting
        while again.socket.poll(0):
            header, _ = again.receive()
            if header.kind == Kind.HELLO:
                got[:], greeting = [header.kind], header.step
                again.acknowledge(0, greeting)
            elif Kind.HELLO not in got:
                again.resync()
            elif header.kind != Kind.PROBE:
                got.append(header.kind)
                again.acknowledge(header.sequence + 1, greeting)
        return not sender.unacked_bytes

    sender.wait(serve, "acknowledgements")
    # The announcement, and the same message in its place in the window: a shard takes it twice, and
    # once more for each question of before that was answered late.
    assert got[:3] == [Kind.HELLO, Kind.OPEN, Kind.OPEN] and got[-1] == Kind.PART
    assert set(got[1:-1]) == {Kind.OPEN}


def test_a_sender_says_goodbye_once_and_may_be_closed_twice(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender = connect(context, shard)
    shard.expect(Kind.HELLO)
    sender.close()
    sender.close()
    shard.expect(Kind.BYE)
    assert shard.quiet()
