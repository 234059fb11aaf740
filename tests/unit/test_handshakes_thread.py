"""Watching handshakes must not halt ZeroMQ's thread, however a line to the coordinator ends."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest
import zmq

from penstock.control import Asker, decode, encode

pytestmark = pytest.mark.timeout(60)


class Answering:
    """A coordinator that answers every request with its number."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._router = context.socket(zmq.ROUTER)
        self.address = f"tcp://127.0.0.1:{self._router.bind_to_random_port('tcp://127.0.0.1')}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        while not self._over.is_set():
            if self._router.poll(20):
                who, frame = self._router.recv_multipart()
                reply = {"kind": "noted", "request": decode(frame)["request"]}
                self._router.send_multipart([who, encode(reply)])

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._router.close(linger=0)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    yield made
    made.destroy(linger=0)


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "forgotten"])
def test_lines_that_end_in_mid_handshake_leave_the_thread_at_work(
    context: zmq.Context[zmq.Socket[bytes]], closed: bool
) -> None:
    server = Answering(context)
    try:
        for _ in range(200):
            line = Asker(server.address, "worker/w0", context=context)
            line.post("book")
            if closed:
                line.close()
            del line
        gc.collect()
        with Asker(server.address, "worker/w0", context=context) as line:
            assert line.ask("book", timeout_s=20.0)["kind"] == "noted"
    finally:
        server.stop()
