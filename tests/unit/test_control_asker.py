"""The line to the coordinator: repeated until answered, also by one that was killed and reborn."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq

from penstock.control import LARGEST_BYTES, Asker, NoAnswer, decode, encode


class Answerer:
    """A ROUTER that answers, or only listens; may be closed and opened again at its address."""

    def __init__(self, address: str = "tcp://127.0.0.1:*") -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(address)
        self.address = self.socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")

    def receive(self, timeout_s: float = 5.0) -> tuple[bytes, dict[str, Any]]:
        assert self.socket.poll(int(timeout_s * 1000)), "no request came"
        identity, frame = self.socket.recv_multipart()
        return identity, decode(frame)

    def reply(self, identity: bytes, request: dict[str, Any], **body: Any) -> None:
        message = {"kind": "reply", "request": request["request"], **body}
        self.socket.send_multipart([identity, encode(message)])

    def close(self) -> None:
        self.socket.close(linger=0)
        self.context.term()


@pytest.fixture
def answerer() -> Iterator[Answerer]:
    made = Answerer()
    yield made
    made.close()


def poll_until_reply(asker: Asker, timeout_s: float = 5.0) -> dict[str, Any]:
    reply = asker.poll(timeout_s)
    assert reply is not None
    return reply


def test_a_request_has_kind_sender_and_number_and_its_reply_comes_back(answerer: Answerer) -> None:
    with Asker(answerer.address, "worker/w1") as asker:
        asker.post("hello", worker="w1")
        identity, request = answerer.receive()
        assert request == {"kind": "hello", "from": "worker/w1", "request": 1, "worker": "w1"}
        assert asker.pending
        answerer.reply(identity, request, campaign=7)
        assert poll_until_reply(asker)["campaign"] == 7
        assert not asker.pending
        assert asker.waited_s == 0.0


def test_ask_blocks_until_the_answer(answerer: Answerer) -> None:
    def answer() -> None:
        identity, request = answerer.receive()
        answerer.reply(identity, request, echo=request["n"])

    thread = threading.Thread(target=answer)
    thread.start()
    with Asker(answerer.address, "t") as asker:
        assert asker.ask("x", n=3, timeout_s=5.0)["echo"] == 3
    thread.join()


def test_an_unanswered_request_is_repeated_with_the_same_number(answerer: Answerer) -> None:
    with Asker(answerer.address, "t", resend_s=0.05) as asker:
        asker.post("x")
        numbers = []
        for _ in range(3):
            assert asker.poll(0.06) is None
            numbers.append(answerer.receive()[1]["request"])
        assert numbers == [1, 1, 1]
        assert asker.waited_s > 0.1


def test_a_late_reply_to_a_request_that_was_given_up_is_dropped(answerer: Answerer) -> None:
    with Asker(answerer.address, "t") as asker:
        asker.post("old")
        identity, old = answerer.receive()
        asker.post("new")
        _, new = answerer.receive()
        answerer.reply(identity, old)
        answerer.reply(identity, new, right=True)
        assert poll_until_reply(asker)["right"]


def test_no_answer_is_an_error_that_says_who_was_asked() -> None:
    with Asker("tcp://127.0.0.1:9", "trainer", resend_s=0.05) as asker:
        with pytest.raises(NoAnswer, match="did not answer 'progress' of trainer"):
            asker.ask("progress", timeout_s=0.2)
        assert asker.poll() is None


def test_a_coordinator_that_is_killed_and_reborn_is_found_again() -> None:
    first = Answerer()
    with Asker(first.address, "t", resend_s=0.05) as asker:
        asker.post("x")
        first.receive()
        first.close()
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            assert asker.poll(0.05) is None
        second = Answerer(first.address)
        done = threading.Event()

        def answer() -> None:
            while not done.is_set():
                if second.socket.poll(20):
                    identity, frame = second.socket.recv_multipart()
                    second.reply(identity, decode(frame), reborn=True)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            assert poll_until_reply(asker)["reborn"]
            assert asker.ask("y", timeout_s=5.0)["reborn"]
        finally:
            done.set()
            thread.join()
            second.close()


def test_a_connection_that_swallows_everything_is_replaced_by_a_fresh_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5.0)
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with Asker(address, "t", resend_s=0.02) as asker:
            asker.post("x")
            connections = [listener.accept()]
            deadline = time.monotonic() + 5.0
            listener.setblocking(False)
            while len(connections) < 3 and time.monotonic() < deadline:
                asker.poll(0.02)
                try:
                    connections.append(listener.accept())
                except BlockingIOError:
                    continue
            assert len(connections) == 3
            for connection, _ in connections:
                connection.close()


def test_close_may_be_called_twice_and_leaves_nothing_pending(answerer: Answerer) -> None:
    asker = Asker(answerer.address, "t")
    asker.post("x")
    asker.close()
    asker.close()
    assert not asker.pending
    with pytest.raises(ValueError, match="closed"):
        asker.post("y")


def test_messages_are_plain_json_whatever_numpy_and_infinity_say() -> None:
    frame = encode({"loss": np.float32(0.5), "n": np.int64(3), "list": np.arange(2), "bad": np.nan})
    assert json.loads(frame) == {"loss": 0.5, "n": 3, "list": [0, 1], "bad": None}
    assert decode(encode({"deep": [{"x": float("inf")}, (1.5,)]})) == {"deep": [{"x": None}, [1.5]]}


@pytest.mark.parametrize("levels", [40, 600, 100_000])
@pytest.mark.parametrize("value", [b"1", b"NaN", b""])
def test_messages_that_are_nested_deep_are_refused(levels: int, value: bytes) -> None:
    frame = b'{"kind":' + b"[" * levels + value + b"]" * levels + b"}"
    with pytest.raises(ValueError, match="nested deeper than 32"):
        decode(frame)
    with pytest.raises(ValueError, match=r"nested deeper than 32|Expecting value"):
        decode(b'{"kind":' + b"[" * levels)


def test_messages_above_one_mebibyte_are_refused_on_both_sides() -> None:
    with pytest.raises(ValueError, match="at most 1048576 bytes"):
        encode({"kind": "x", "text": "y" * LARGEST_BYTES})
    with pytest.raises(ValueError, match="1048576"):
        decode(b" " * (LARGEST_BYTES + 1))
    with pytest.raises(ValueError, match="JSON object"):
        decode(b"[1]")
    with pytest.raises(TypeError, match="cannot hold a object"):
        encode({"x": object()})
