"""The counting server of `penstock try`: layouts, lost messages and repeated requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq

from penstock import wire
from penstock.layout import FieldSpec, Owned, share
from penstock.wire import FieldEntry, Header, Kind
from penstock_server.try_counts import Counts
from penstock_server.try_desk import Desk, Work
from penstock_server.try_server import CAMPAIGN, CountingServer

SHAPE = (6, 4)
F8 = wire.dtype_code(np.dtype("f8"))


def plan(part: int, n_parts: int, owned: Owned, shape: tuple[int, ...] = SHAPE) -> Any:
    payload = share(FieldSpec("u", 0, shape, np.dtype("f8")), owned).plan
    entry = FieldEntry(0, wire.dtype_code(payload.dtype), payload.nbytes)
    header = Header(Kind.PLAN, CAMPAIGN, part=part, n_parts=n_parts, plan=1, fields=(entry,))
    return header, [payload.tobytes()]


def layout(*owned: Owned, shape: tuple[int, ...] = SHAPE) -> list[str]:
    counts = Counts(["u"])
    for part, piece in enumerate(owned):
        counts.take(*plan(part, len(owned), piece, shape), now=0.0)
    return counts.layout(0)


def rows(start: int, stop: int) -> tuple[slice, slice]:
    return slice(start, stop), slice(None)


def test_parts_that_cover_a_field_once_are_in_order() -> None:
    assert layout(rows(0, 2), rows(2, 6)) == []
    indices = np.random.default_rng(1).permutation(24)
    assert layout(indices[:10], indices[10:]) == []
    assert layout((), shape=()) == []


def test_ghosts_are_counted() -> None:
    (problem,) = layout(rows(0, 4), rows(3, 6))
    assert problem.startswith("4 of 24 values are sent by more than one rank (ghosts?)")


def test_missing_values_are_counted() -> None:
    (problem,) = layout(rows(0, 2), rows(4, 6))
    assert problem == "8 of 24 values are sent by no rank"
    assert layout(np.arange(5), np.arange(4, 20)) == [
        "1 of 24 values are sent by more than one rank (ghosts?); send owned values only",
        "4 of 24 values are sent by no rank",
    ]


def test_ranks_that_disagree_on_the_shape_are_named() -> None:
    counts = Counts(["u"])
    counts.take(*plan(0, 2, rows(0, 2)), now=0.0)
    counts.take(*plan(1, 2, rows(2, 7), shape=(7, 4)), now=0.0)
    (problem,) = counts.layout(0)
    assert "rank 0: (6, 4); rank 1: (7, 4)" in problem


def part_message(step: int, part: int = 0, n: int = 24, lease: int = 1) -> Any:
    entry = FieldEntry(0, F8, 8 * n)
    header = Header(
        Kind.PART, CAMPAIGN, lease - 1, lease, step, part, 2, plan=1, t=float(step), fields=(entry,)
    )
    return header, [np.full(n, float(step)).tobytes()]


def test_a_step_is_complete_when_every_rank_has_sent_it() -> None:
    counts = Counts(["u"])
    counts.assign(0, {}, now=0.0)
    counts.take(Header(Kind.OPEN, CAMPAIGN, 0, 1, n_parts=2), [], now=0.5)
    counts.take(*plan(0, 2, rows(0, 3)), now=0.5)
    counts.take(*plan(1, 2, rows(3, 6)), now=0.5)
    seen = counts.simulations[0]
    counts.take(*part_message(0, 0, n=12), now=1.0)
    assert seen.done_s == []
    counts.take(*part_message(0, 1, n=12), now=1.25)
    assert (seen.done_s, seen.spread_s, seen.t) == ([1.25], [0.25], [0.0])
    counts.take(*part_message(0, 1, n=12), now=2.0)
    assert (seen.twice, seen.done_s) == (1, [1.25])
    assert counts.seen(0).problems == []


def test_a_part_that_is_not_as_large_as_its_layout_is_told() -> None:
    counts = Counts(["u"])
    counts.assign(0, {}, now=0.0)
    counts.take(*plan(0, 1, rows(0, 6)), now=0.0)
    counts.take(*part_message(0, n=23), now=1.0)
    (problem,) = counts.seen(0).problems
    assert "23 values came, and its layout has 24" in problem


def test_a_field_without_a_layout_is_told() -> None:
    counts = Counts()
    counts.assign(0, {}, now=0.0)
    counts.take(*part_message(0), now=1.0)
    (problem,) = counts.seen(0).problems
    assert "without a layout" in problem


def desk(n: int = 2) -> Desk:
    return Desk(
        Counts(), {"shards": {}, "fields": {}}, Work(tuple({"a": float(i)} for i in range(n)))
    )


def ask(desk: Desk, kind: str, **body: Any) -> dict[str, Any]:
    return desk.answer({"kind": kind, "worker": "w1", **body}, 1.0)


def beat(desk: Desk, state: str, worker: str = "", **body: Any) -> str:
    return str(
        desk.answer({"kind": "beat", "state": state, "worker": worker, **body}, 1.0)["order"]
    )


def test_a_repeated_request_gets_the_same_simulation() -> None:
    here = desk()
    first = ask(here, "next", sequence=1)
    assert ask(here, "next", sequence=1) == first
    assert ask(here, "next", sequence=2)["simulation"] == first["simulation"] + 1
    assert ask(here, "next", sequence=3)["kind"] == "over"


def test_an_order_to_start_is_given_until_a_beat_shows_it() -> None:
    here = desk()
    assert [beat(here, "idle"), beat(here, "idle")] == ["start", "start"]
    assert here.starts == 1
    assert beat(here, "running", "w1") == "go_on"


def test_a_program_is_started_again_only_while_it_brings_simulations() -> None:
    here = desk(n=3)
    beat(here, "idle")
    ask(here, "next", sequence=1)
    reply = here.answer({"kind": "beat", "state": "exited", "worker": "w1", "exit_code": 0}, 1.0)
    assert (reply["order"], reply["worker"]) == ("start", "w2")
    assert beat(here, "exited", "w1", exit_code=0) == "start"  # the reply was lost
    assert beat(here, "exited", "w2", exit_code=0) == "leave"  # it asked for nothing
    assert here.finished


def test_a_program_that_failed_is_not_started_again() -> None:
    here = desk(n=3)
    beat(here, "idle")
    ask(here, "next", sequence=1)
    assert beat(here, "exited", "w1", exit_code=1, stderr_tail="no mesh") == "leave"
    assert (here.exit_code, here.stderr_tail) == (1, "no mesh")


def test_unknown_requests_are_refused() -> None:
    assert ask(desk(), "validated")["kind"] == "refused"


class Client:
    """A bare DEALER on the data socket of a counting server."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.server = CountingServer(self.counts)
        self.desk = desk()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(self.server.data_address)

    def say(self, kind: Kind, **header: Any) -> Header:
        """Sends a message and gives the answer's header."""
        self._socket.send(bytes(wire.encode(Header(kind, CAMPAIGN, **header))))
        while not self._socket.poll(0):
            self.server.turn(self.desk, 0.01)
        return wire.decode(self._socket.recv_multipart()[0])

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()
        self.server.close()
        self.server.close()


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


def test_one_who_has_not_greeted_is_told_to(client: Client) -> None:
    assert client.say(Kind.PROBE).kind == Kind.RESYNC
    answer = client.say(Kind.HELLO, step=7)
    assert (answer.kind, answer.step, answer.sequence) == (Kind.ACK, 7, 0)


def test_messages_are_acknowledged_cumulatively_and_counted_once(client: Client) -> None:
    client.counts.assign(0, {}, 0.0)
    client.say(Kind.HELLO, step=1)
    opened = {"simulation": 0, "lease": 1, "n_parts": 1}
    assert client.say(Kind.OPEN, sequence=0, **opened).sequence == 1
    assert client.say(Kind.PART, sequence=1, step=0, **opened).sequence == 2
    assert client.say(Kind.PART, sequence=1, step=0, **opened).sequence == 2  # a resend
    assert client.say(Kind.PART, sequence=5, step=4, **opened).kind == Kind.RESYNC  # a gap
    assert client.counts.simulations[0].complete == {0}
    assert client.counts.simulations[0].twice == 0
