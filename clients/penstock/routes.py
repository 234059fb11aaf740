"""Whether a connection leaves this host."""

from __future__ import annotations

import socket


def stays_here(address: str) -> bool:
    """Whether what goes to a `tcp://IP:PORT` stays on this host; names are not asked for.

    The own address on a way is the other one's if there is no way. Nothing is sent.
    """
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        family, kind, protocol, _, there = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_DGRAM, flags=numeric
        )[0]
        with socket.socket(family, kind, protocol) as way:
            way.connect(there)
            return bool(way.getsockname()[0] == there[0])
    except OSError:
        return False
