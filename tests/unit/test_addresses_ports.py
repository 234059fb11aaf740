"""The ports that a run chooses for its processes."""

from __future__ import annotations

import socket

import pytest

from penstock_server import addresses


def test_ports_are_different_and_none_that_an_outgoing_connection_could_take() -> None:
    ports = addresses.free_ports(40)
    assert len(set(ports)) == 40
    assert set(ports) <= set(addresses.QUIET_PORTS)


def test_a_port_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setattr(addresses, "QUIET_PORTS", range(port, port + 1))
        ports = addresses.free_ports(2)
    assert len(set(ports)) == 2
    assert port not in ports
