"""What stays on this host, of which the system gets little ahead."""

from __future__ import annotations

import pytest
import zmq

from penstock import sender as senders
from penstock.routes import stays_here
from penstock.sender import Sender
from penstock.wire import Header, Kind


def test_what_stays_on_this_host_is_known_by_its_address() -> None:
    assert stays_here("tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    "address",
    [
        "tcp://192.0.2.1:9", "tcp://[2001:db8::1]:9", "tcp://localhost:9", "tcp://127.0.0.1",
        "tcp://:9", "ipc:///tmp/x:9", "", "tcp://127.0.0.1:port",
    ],
)  # fmt: skip
def test_whatever_else_may_leave_it(address: str) -> None:
    assert not stays_here(address)


@pytest.mark.parametrize(
    ("host", "most"), [("127.0.0.1", senders.LOCAL_BUFFER_BYTES), ("localhost", -1)]
)
def test_the_system_chooses_its_buffer_where_a_network_may_be(host: str, most: int) -> None:
    with zmq.Context() as context:
        sender = Sender(context, "0", f"tcp://{host}:9", Header(Kind.HELLO, 3), 1 << 20)
        assert sender._socket.get(zmq.SNDBUF) == most
        sender.close(linger_s=0)
